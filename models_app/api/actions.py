"""Start, stop, restart: what is wanted is written at once (202); ``?wait=SECONDS`` answers when it is so.

Writing and permissions are a plain DRF view. Waiting is asynchronous around it: twice a second a short look at the
database, and no thread is busy in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import Scope
from llmplatform.lib.api import errors
from llmplatform.lib.api.permissions import IsOperator
from models_app import reasons, selectors, services
from models_app.api.serializers import WaitSerializer, WantedSerializer
from models_app.models import ModelConfig, Replica
from models_app.states import COMING, State

LOOK_SECONDS = 0.5
View = Callable[..., HttpResponseBase]


@dataclass(frozen=True)
class Outlook:
    """What is to be seen of a model now: its state, why it does not run, and whether waiting may end."""

    state: State
    reason: str
    reached: bool
    hopeless: bool


@dataclass(frozen=True)
class Aim:
    """What somebody asked for. ``since``: replicas must have changed after this moment; None when any will do."""

    model: str
    wanted: State
    since: datetime | None
    asked: datetime

    def look(self) -> Outlook:
        model = ModelConfig.objects.filter(name=self.model).first()
        if model is None:  # removed meanwhile
            return Outlook(State.STOPPED, "", self.wanted == State.STOPPED, True)
        replicas = list(Replica.objects.filter(model=model).order_by("number"))
        state = selectors.model_state(model, replicas)
        reason = next((text for replica in replicas if (text := reasons.text(replica.reason))), "")
        failed = [replica for replica in replicas if replica.state == State.FAILED and replica.since >= self.asked]
        coming = any(replica.state in COMING for replica in replicas)
        hopeless = self.wanted == State.READY and bool(failed) and not coming
        return Outlook(state, reason, self._reached(model, state, replicas), hopeless)

    def _reached(self, model: ModelConfig, state: State, replicas: list[Replica]) -> bool:
        if self.wanted == State.STOPPED:
            return state == State.STOPPED
        if self.since is None:
            return state == State.READY
        since = self.since
        renewed = [replica for replica in replicas if replica.state == State.READY and replica.since >= since]
        return bool(renewed) and len(renewed) >= model.wanted_replicas


def waiting(view: View) -> View:
    """Around an ActionView: waits as long as the caller asked for, then corrects the answer."""

    @wraps(view)  # keeps cls, csrf_exempt and what else DRF and the API description look for
    async def call(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        response = await sync_to_async(view)(request, *args, **kwargs)
        aim: Aim | None = getattr(response, "aim", None)
        if aim is None or not isinstance(response, Response):
            return response
        return await _until_reached(aim, response, time.monotonic() + getattr(response, "wait", 0.0))

    return cast(View, call)  # Django takes asynchronous views; its types for path() do not say so


async def _until_reached(aim: Aim, response: Response, until: float) -> Response:
    look = sync_to_async(aim.look)
    outlook = await look()
    while not (outlook.reached or outlook.hopeless) and time.monotonic() < until:
        await asyncio.sleep(min(LOOK_SECONDS, max(0.0, until - time.monotonic())))
        outlook = await look()
    if outlook.reached:
        response.status_code = 200
        response.data = answer(aim, outlook.state)
    else:
        response.status_code = 504
        response.data = errors.body(
            "state_not_reached",
            outlook.reason or _("The model is not there yet; it goes on by itself."),
            {"wanted": aim.wanted, "state": outlook.state, "reason": outlook.reason or None},
        )
    return response


def answer(aim: Aim, state: State) -> dict[str, Any]:
    return {"modelName": aim.model, "wanted": str(aim.wanted), "state": str(state)}


class ActionView(APIView):
    """202 with what is wanted; the subclass says what to write and what to wait for."""

    permission_classes = [IsOperator]
    key_scopes = {"POST": Scope.MODELS_WRITE}

    def write(self, name: str) -> Aim:
        raise NotImplementedError

    def respond(self, request: Request, name: str) -> Response:
        asked = WaitSerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        aim = self.write(name)
        response = Response(answer(aim, aim.look().state), status=202)
        if wait := asked.validated_data["wait"]:
            response.aim, response.wait = aim, wait  # type: ignore[attr-defined]  # for waiting(), around this view
        return response


def _schema(what: str) -> Any:
    return extend_schema(
        tags=["models"],
        summary=what,
        request=None,
        parameters=[WaitSerializer],
        responses={202: WantedSerializer, 200: WantedSerializer, 504: None},
    )


class StartView(ActionView):
    @_schema("Start a model")
    def post(self, request: Request, name: str) -> Response:
        return self.respond(request, name)

    def write(self, name: str) -> Aim:
        aim = Aim(name, State.READY, None, timezone.now())
        services.start(name)
        return aim


class StopView(ActionView):
    @_schema("Stop a model")
    def post(self, request: Request, name: str) -> Response:
        return self.respond(request, name)

    def write(self, name: str) -> Aim:
        services.set_active(name, False)
        return Aim(name, State.STOPPED, None, timezone.now())


class RestartView(ActionView):
    @_schema("Restart a model, one replica after the other")
    def post(self, request: Request, name: str) -> Response:
        return self.respond(request, name)

    def write(self, name: str) -> Aim:
        """Asking for the restart of a stopped model starts it."""
        now = timezone.now()
        services.set_active(name, True, asked=False)
        services.request_restart(name)
        return Aim(name, State.READY, now, now)


class GoBackView(ActionView):
    @_schema("Go back to a model's settings before their last change")
    def post(self, request: Request, name: str) -> Response:
        return self.respond(request, name)

    def write(self, name: str) -> Aim:
        now = timezone.now()
        services.go_back(name)
        return Aim(name, State.READY, None, now)
