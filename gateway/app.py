"""The Starlette application for the inference path: which path is answered by what.

Mounted beside Django by ``llmplatform.routing``. Starlette routes; the endpoints are plain ASGI applications, without the
middleware and response classes that would cost a task group a request.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from abc import ABC, abstractmethod
from typing import Any

from starlette.routing import Route, Router

from accounts.models import new_request_id
from gateway import bodies, ending, errors
from gateway.endpoints import ENDPOINTS, Endpoint
from gateway.errors import GatewayError, Protocol
from gateway.exchange import InferenceRequest
from gateway.http import ClientGone, Incoming, Receive, Scope, Send, while_connected
from gateway.inference import infer
from gateway.models_directory import directory
from gateway.native import NativeChat
from models_app.selectors import ModelView

logger = logging.getLogger(__name__)

PREFIXES = ("/v1", "/api/v1/v1")
PATHS = re.compile(r"^(/v1/|/api/v1/v1/|/api/v1/models/[^/]+/chat$)")  # all that is answered here


class Handler(ABC):
    """Answers one path. Whatever happens, the client gets an answer in its protocol, and nothing of our insides."""

    def __init__(self, protocol: Protocol, method: str) -> None:
        self.protocol = protocol
        self.method = method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(scope, receive, send, new_request_id())
        incoming.speak_its_language()
        try:
            incoming.check_host()
            if scope["method"] != self.method:
                raise errors.method_not_allowed(self.method)
            if ending.has_begun():
                raise errors.unavailable()
            await self.answer(incoming)
        except asyncio.CancelledError:
            # What has begun to be sent can only be broken off.
            if (incoming.started and not incoming.waits) or not ending.has_begun():
                raise
            await incoming.send_error(errors.unavailable(), self.protocol)
        except ClientGone:
            return
        except GatewayError as error:
            await incoming.send_error(error, self.protocol)
        except Exception:  # the loop's edge: the server would answer with a page of its own
            logger.exception("unhandled error in %s", scope["path"], extra={"request_id": incoming.request_id})
            if incoming.started and not incoming.waits:
                raise
            await incoming.send_error(errors.internal(), self.protocol)

    @abstractmethod
    async def answer(self, incoming: Incoming) -> None: ...


class Inference(Handler):
    """Requests that go to a replica."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.protocol, "POST")
        self._endpoint = endpoint

    async def answer(self, incoming: Incoming) -> None:
        caller = await incoming.caller("inference")
        raw = await incoming.body()
        request = InferenceRequest(
            self._endpoint.name,
            bodies.parse(raw),
            caller,
            request_id=incoming.request_id,
            raw=raw,
            early=incoming.early,
        )
        streams = self._endpoint.generates and request.body.get("stream") is True
        if streams:
            request.on_queue = incoming.tell_waiting
        request.deadline = incoming.deadline(streams=streams)
        await while_connected(incoming.receive, self._forward(incoming, request))

    async def _forward(self, incoming: Incoming, request: InferenceRequest) -> None:
        await incoming.send_answer(await infer(request))


class Native(Handler):
    """``/api/v1/models/<name>/chat``."""

    def __init__(self) -> None:
        super().__init__(Protocol.REST, "POST")

    async def answer(self, incoming: Incoming) -> None:
        caller = await incoming.caller("inference")
        name: str = incoming.scope["path_params"]["name"]
        chat = NativeChat.read(name, bodies.parse(await incoming.body()), caller, incoming.request_id)
        if chat.fields["stream"]:
            chat.on_queue = incoming.tell_waiting
        chat.deadline, chat.early = incoming.deadline(streams=chat.fields["stream"]), incoming.early
        await while_connected(incoming.receive, self._forward(incoming, chat))

    async def _forward(self, incoming: Incoming, chat: NativeChat) -> None:
        await incoming.send_answer(await chat.answer())


def _model_objects(view: ModelView) -> list[dict[str, Any]]:
    """The model, and each alias as one of its own: clients let people choose from the list, or look for a name they know."""
    own = {
        "id": view.name,
        "object": "model",
        "created": view.created,
        "owned_by": "llm-platform",
        "description": view.description,
        "context_length": view.context_length,
        "max_tokens": view.max_tokens,
        "state": str(view.state),
        "default": view.is_default,
    }
    return [own, *({**own, "id": alias, "alias_of": view.name, "default": False} for alias in view.aliases)]


class Models(Handler):
    """``/models`` and ``/models/{id}``."""

    def __init__(self) -> None:
        super().__init__(Protocol.OPENAI, "GET")

    async def answer(self, incoming: Incoming) -> None:
        views = await directory().models_for(await incoming.caller("inference", "models:read"))
        objects = [one for view in views for one in _model_objects(view)]
        name: str | None = incoming.scope["path_params"].get("name")
        found: dict[str, Any]
        if name is None:
            found = {"object": "list", "data": objects}
        else:
            found = next((one for one in objects if one["id"] == name), {})
            if not found:
                raise errors.model_not_found(name)
        headers = {"content-type": "application/json", "x-request-id": incoming.request_id}
        await incoming.send_whole(200, headers, json.dumps(found, ensure_ascii=False).encode())


class Unknown(Handler):
    """Every other path below ours."""

    def __init__(self) -> None:
        super().__init__(Protocol.OPENAI, "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(scope, receive, send, new_request_id())
        incoming.speak_its_language()
        await incoming.send_error(errors.not_found(), self.protocol)

    async def answer(self, incoming: Incoming) -> None:
        raise errors.not_found()


def _routes() -> list[Route]:
    handlers = {endpoint.path: Inference(endpoint) for endpoint in ENDPOINTS.values()}
    routes = [Route(prefix + path, handler) for path, handler in handlers.items() for prefix in PREFIXES]
    for prefix in PREFIXES:
        routes += [Route(prefix + "/models", Models()), Route(prefix + "/models/{name:path}", Models())]
    return [*routes, Route("/api/v1/models/{name}/chat", Native())]


_BY_PATH = {prefix + endpoint.path: endpoint.protocol for endpoint in ENDPOINTS.values() for prefix in PREFIXES}


def protocol_of(path: str) -> Protocol:
    """Whose error format an answer to that path has to have."""
    ours = path.startswith(tuple(f"{prefix}/" for prefix in PREFIXES))
    return _BY_PATH.get(path, Protocol.OPENAI if ours else Protocol.REST)


class ByPath(Router):
    """Most paths have nothing to be found in them; for those a router tries one expression after the other."""

    def __init__(self, routes: list[Route]) -> None:
        super().__init__(routes, redirect_slashes=False, default=Unknown())
        self._exact = {route.path: route.app for route in routes if not route.param_convertors}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._exact.get(scope["path"])
        if handler is None:
            await super().__call__(scope, receive, send)
        else:
            await handler({**scope, "path_params": {}}, receive, send)


gateway_application = ByPath(_routes())
