"""Reads for the chat page and its websocket. Every function starts from whose conversations they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext as _

from chat import markdown, services
from chat.live import live
from chat.models import Conversation, Message
from llmplatform.lib.process_identity import own_identity

LONGEST_QUERY = 200  # characters of a search
# How many of the newest conversations a search reads the texts of; titles are searched in all.
SEARCHED_CONVERSATIONS = 1000
KEPT_RENDERED = 16_000  # characters; longer messages are rendered each time


@dataclass(frozen=True, slots=True)
class ConversationRow:
    id: UUID
    title: str
    model_name: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One message as the page shows it; ``last_seq`` is what ``resume`` goes on from."""

    id: UUID
    role: str
    state: str
    text: str
    html: str
    reasoning: str
    model_name: str
    error: dict[str, Any] | None
    stats: dict[str, Any] | None
    created_at: datetime
    parent_id: UUID | None
    last_seq: int


# -- the list ----------------------------------------------------------------------------------------------------------
def conversations(
    user_id: int, before: str = "", query: str = "", limit: int = 30
) -> tuple[list[ConversationRow], str]:
    """The newest first, and the cursor of the next page ("" at the end). One query, whatever the number of conversations."""
    rows = Conversation.objects.filter(user_id=user_id)
    if query := services.storable(query).strip()[:LONGEST_QUERY]:
        rows = _matching(rows, user_id, query)
    if before:
        rows = _after_cursor(rows, before)
    fields = rows.order_by("-updated_at", "-id").values_list("id", "title", "model_name", "updated_at")
    found = [ConversationRow(*row) for row in fields[: limit + 1]]
    page = found[:limit]
    return page, _cursor(page[-1]) if len(found) > limit else ""


def _cursor(row: ConversationRow) -> str:
    return f"{row.updated_at.isoformat()}_{row.id}"


def _after_cursor(rows: QuerySet[Conversation], cursor: str) -> QuerySet[Conversation]:
    updated_at, id_ = _parsed_cursor(cursor)
    same_time = Q(updated_at=updated_at, id__lt=id_)
    # The first condition says nothing new, but it is the one an index can start from.
    return rows.filter(updated_at__lte=updated_at).filter(Q(updated_at__lt=updated_at) | same_time)


def _parsed_cursor(cursor: str) -> tuple[datetime, UUID]:
    time, _separator, id_ = cursor.partition("_")
    try:
        updated_at = datetime.fromisoformat(time)
        if updated_at.tzinfo is not None:
            return updated_at, UUID(id_)
    except ValueError:
        pass
    raise services.BadCursor


def _matching(rows: QuerySet[Conversation], user_id: int, query: str) -> QuerySet[Conversation]:
    newest = Conversation.objects.filter(user_id=user_id).order_by("-updated_at", "-id")
    searched = newest.values("id")[:SEARCHED_CONVERSATIONS]
    says_it = Message.objects.filter(conversation=OuterRef("id"), text__icontains=query)
    return rows.filter(Q(title__icontains=query) | (Q(id__in=searched) & Exists(says_it)))


def conversation(user_id: int, conversation_id: UUID | str) -> Conversation:
    """Raises ``services.NotFound`` for an unknown one and for somebody else's alike."""
    found = Conversation.objects.filter(user_id=user_id, id=services.as_uuid(conversation_id)).first()
    if found is None:
        raise services.NotFound
    return found


# -- one conversation --------------------------------------------------------------------------------------------------
def messages(conversation: Conversation, before: str = "", limit: int = 30) -> tuple[list[MessageRow], str]:
    """A page of the visible branch, oldest first, the last page first; the cursor leads to older ones. Two queries."""
    branch = services.visible_branch_ids(conversation)
    end = _place_in(branch, before) if before else len(branch)
    ids = branch[max(0, end - limit) : end]
    found = conversation.messages.in_bulk(ids)
    page = [message_row(found[id_]) for id_ in ids if id_ in found]
    return page, str(ids[0]) if ids and ids[0] != branch[0] else ""


def _place_in(branch: list[UUID], cursor: str) -> int:
    """Where a page ends. A message that left the branch meanwhile (an answer made again) can only have been its last."""
    try:
        message = UUID(cursor)
    except ValueError:
        raise services.BadCursor from None
    return branch.index(message) if message in branch else len(branch)


def message_row(message: Message) -> MessageRow:
    """As it is now: a running one from the memory of who writes it, one that lost its writer as failed."""
    end_if_abandoned(message)
    recording = live.get(message.id) if message.state == Message.State.RUNNING else None
    text, reasoning, seq = recording.transcript.snapshot() if recording else _stored(message)
    return MessageRow(
        id=message.id,
        role=message.role,
        state=message.state,
        text=text,
        html=_html(message.role, text),
        reasoning=reasoning,
        model_name=message.model_name,
        error=shown_error(message.error),
        stats=message.stats,
        created_at=message.created_at,
        parent_id=message.parent_id,
        last_seq=seq,
    )


def end_if_abandoned(message: Message) -> None:
    """A message still marked as running, whose writer is gone or does not know of it, is told and stored as interrupted."""
    if message.state != Message.State.RUNNING or live.is_known(message.id):
        return
    if message.owner == own_identity() or services.is_abandoned(message):
        services.interrupt(message)


def _stored(message: Message) -> tuple[str, str, int]:
    return message.text, message.reasoning, len(message.reasoning) + len(message.text)


def shown_error(error: dict[str, Any] | None) -> dict[str, Any] | None:
    """An error found by nobody in particular is worded when somebody reads it."""
    if error and not error.get("message"):
        return {**error, "message": _("The service stopped while this answer was being written.")}
    return error


def deleted_error() -> dict[str, Any]:
    return {"code": "not_found", "message": str(services.NotFound()), "retry": False}


def _html(role: str, text: str) -> str:
    render = markdown.render if role == Message.Role.ASSISTANT else markdown.render_plain
    return _kept(render, text) if len(text) <= KEPT_RENDERED else render(text)


@lru_cache(maxsize=256)
def _kept(render: Callable[[str], str], text: str) -> str:
    return render(text)
