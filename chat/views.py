"""The chat page and the pieces of it that are fetched later. All text goes through chat.selectors and chat.services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, cast
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accounts.callers import models_shown_to
from accounts.models import User
from chat import selectors, services
from chat.day_groups import grouped
from chat.page_texts import answer_facts, script_texts, suggestions
from models_app.selectors import ModelView, serving_snapshot
from models_app.states import COMING, State

# Fetched together with the page instead of one after the other as each import is discovered.
MODULES = [
    "site/clipboard.js",
    "site/menu.js",
    "site/toast.js",
    "chat/answer.js",
    "chat/composer.js",
    "chat/conversation.js",
    "chat/models.js",
    "chat/scroll.js",
    "chat/sidebar.js",
    "chat/socket.js",
    "chat/speech.js",
    "chat/texts.js",
]
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    name: str
    state: str
    state_text: str
    description: str
    names: tuple[str, ...]
    is_default: bool
    answers: bool  # now or soon


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A message with what the template needs beside it."""

    row: selectors.MessageRow
    facts: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


def told(
    view: Callable[Concatenate[HttpRequest, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Errors of chat.services as HTTP: not found, or a request that is not right."""

    @wraps(view)
    def answering(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except services.NotFound as error:
            raise Http404 from error
        except services.ChatError as error:
            return HttpResponseBadRequest(error.message, content_type="text/plain; charset=utf-8")

    return cast("Callable[Concatenate[HttpRequest, P], HttpResponse]", answering)


@login_required
@require_safe
@never_cache
@told
def page(request: HttpRequest, conversation_id: UUID | None = None) -> HttpResponse:
    user_id = _user_id(request)
    conversation = selectors.conversation(user_id, conversation_id) if conversation_id else None
    rows, list_before = selectors.conversations(user_id)
    thread, before = selectors.messages(conversation) if conversation else ([], "")
    models = model_choices(request)
    last_used = conversation.model_name if conversation else (rows[0].model_name if rows else "")
    context = {
        "conversation": conversation,
        "groups": grouped(rows),
        "list_before": list_before,
        "thread_messages": _shown(thread),
        "before": before,
        "models": models,
        "model": chosen_model(models, last_used),
        "modules": MODULES,
        "texts": script_texts(),
        "suggestions": suggestions(),
    }
    return render(request, "chat/chat.html", context)


@login_required
@require_safe
@never_cache
@told
def conversation_list(request: HttpRequest) -> HttpResponse:
    """More of the list, or what a search finds."""
    before, query = request.GET.get("before", ""), request.GET.get("q", "").strip()
    rows, list_before = selectors.conversations(_user_id(request), before=before, query=query)
    context = {"groups": grouped(rows), "list_before": list_before, "query": query, "continued": bool(before)}
    return render(request, "chat/list.html", context)


@login_required
@require_safe
@never_cache
@told
def messages(request: HttpRequest, conversation_id: UUID) -> HttpResponse:
    """The last messages of a conversation, or those before a cursor.."""
    conversation = selectors.conversation(_user_id(request), conversation_id)
    thread, before = selectors.messages(conversation, before=request.GET.get("before", ""))
    context = {"conversation": conversation, "thread_messages": _shown(thread), "before": before}
    return render(request, "chat/thread.html", context)


@login_required
@require_safe
@never_cache
@told
def models(request: HttpRequest) -> HttpResponse:
    """The choice of models with their present states."""
    choices = model_choices(request)
    context = {"models": choices, "model": chosen_model(choices, request.GET.get("model", ""))}
    return render(request, "chat/models.html", context)


@require_POST
@login_required
@told
def rename(request: HttpRequest, conversation_id: UUID) -> HttpResponse:
    title = services.rename(_user_id(request), conversation_id, request.POST.get("title", ""))
    return HttpResponse(title, content_type="text/plain; charset=utf-8")


@require_POST
@login_required
@told
def delete(request: HttpRequest, conversation_id: UUID) -> HttpResponse:
    services.delete(_user_id(request), conversation_id)
    return HttpResponse(status=204)


def model_choices(request: HttpRequest) -> list[ModelChoice]:
    """Models this person can chat with: ready ones first, then those on their way, then those that a question loads; among them
    the default first."""
    shown = models_shown_to(cast(User, request.user))
    views = [view for view in serving_snapshot().values() if not view.embeddings]
    views = [view for view in views if shown is None or not shown.isdisjoint(view.names)]
    views.sort(key=lambda view: (view.state != State.READY, view.state not in COMING, not view.is_default, view.name))
    return [
        ModelChoice(
            view.name,
            view.state,
            _state_text(view),
            view.description,
            view.names,
            view.is_default,
            answers=view.on_demand or view.state == State.READY or view.state in COMING,
        )
        for view in views
    ]


def _state_text(view: ModelView) -> str:
    if view.on_demand and view.state == State.STOPPED:
        return _("loaded when asked")
    return str(State(view.state).label)


def chosen_model(choices: list[ModelChoice], wanted: str) -> ModelChoice | None:
    """The model used last, as long as it exists; else the default, unless it does not run; else the first."""
    used = (choice for choice in choices if wanted in choice.names)
    default = (choice for choice in choices if choice.is_default and choice.answers)
    return next(used, None) or next(default, None) or next(iter(choices), None)


def _user_id(request: HttpRequest) -> int:
    user_id = request.user.pk
    assert isinstance(user_id, int)  # noqa: S101 - login_required stands before
    return user_id


def _shown(rows: list[selectors.MessageRow]) -> list[ShownMessage]:
    return [ShownMessage(row, answer_facts(row.stats, row.model_name, row.state)) for row in rows]
