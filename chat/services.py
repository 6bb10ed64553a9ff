"""Everything that changes conversations: one function per thing a person could ask for, and what a generation stores.

    ChatError           something a person is told, with a stable code
    ├── NotFound        no such conversation or message, or somebody else's: the two look alike from outside
    └── BadCursor       a page address that none of our pages gave

All functions are synchronous; from the event loop they are called in a thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from chat.models import Conversation, Message
from llmplatform.lib.process_identity import is_gone, own_identity

TITLE_LENGTH = 60
LONGEST_TITLE = 200
LONGEST_CONTENT = 200_000  # characters; what a model can read is far less, and it says so with both numbers
# A generation ends by itself after this long; a message that runs for longer belongs to nobody any more.
LONGEST_GENERATION = timedelta(hours=1)
GRACE = timedelta(minutes=5)


class ChatError(Exception):
    """``retry`` says whether the same again may work."""

    def __init__(self, code: str, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry


class NotFound(ChatError):
    def __init__(self) -> None:
        super().__init__("not_found", _("There is no such conversation or message."))


class BadCursor(ChatError, ValueError):
    def __init__(self) -> None:
        super().__init__("invalid_request", _("This page address is not right; start from the first page."))


def as_uuid(value: object) -> UUID:
    """An id from outside; anything that is none cannot be found."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value) if isinstance(value, str) else _not_found()
    except ValueError:
        return _not_found()


def _not_found() -> UUID:
    raise NotFound


def storable(text: str) -> str:
    """Text as every database takes it: no NUL (PostgreSQL), no half surrogate pair (UTF-8)."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def title_from(content: str) -> str:
    """The first line that says something, cut at a word where there are words."""
    line = next((" ".join(part.split()) for part in content.splitlines() if part.strip()), "")
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[:TITLE_LENGTH]
    at_word = cut.rpartition(" ")[0]
    return (at_word if len(at_word) > TITLE_LENGTH // 2 else cut) + "…"


# -- what a person asks for --------------------------------------------------------------------------------------------
def rename(user_id: int, conversation_id: UUID | str, title: str) -> str:
    """The title as it was stored."""
    title = " ".join(storable(title).split())[:LONGEST_TITLE]
    if not title:
        raise ChatError("invalid_request", _("A title needs at least one character."))
    if not Conversation.objects.filter(user_id=user_id, id=as_uuid(conversation_id)).update(title=title):
        raise NotFound
    return title


def delete(user_id: int, conversation_id: UUID | str) -> None:
    """Removes it with all its messages. An answer being written notices at its next save and stops."""
    deleted, _by_model = Conversation.objects.filter(user_id=user_id, id=as_uuid(conversation_id)).delete()
    if not deleted:
        raise NotFound


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and the answer about to be written, with all the model is told."""

    conversation: UUID
    title: str
    question: UUID
    answer: UUID
    model: str
    content: str
    history: tuple[dict[str, str], ...]


def ask(user_id: int, conversation_id: UUID | None, model: str, content: str, answer_id: UUID) -> Exchange:
    """Stores a question and the empty answer to it, in a new conversation or at the end of the visible branch."""
    content = storable(content)
    now = timezone.now()
    with transaction.atomic():
        if conversation_id is None:
            conversation = Conversation(user_id=user_id, title=title_from(content), updated_at=now)
            branch: list[Message] = []
        else:
            conversation = _locked(user_id, conversation_id)
            branch = visible_branch(conversation)
            _refuse_if_busy(branch[-1:])
        _touch(conversation, model, now)
        question = Message.objects.create(
            conversation=conversation, parent=branch[-1] if branch else None, role=Message.Role.USER, text=content
        )
        answer = _empty_answer(question, model, answer_id)
    return _exchange(conversation, question, answer, [*branch, question])


def keep_turn(user_id: int, conversation_id: UUID | None, model: str, question: str, answer: str) -> UUID:
    """Stores a question with its finished answer, at the end of the visible branch or in a new conversation."""
    with transaction.atomic():
        asked = ask(user_id, conversation_id, model, question, uuid4())
        Message.objects.filter(id=asked.answer).update(state=Message.State.DONE, text=storable(answer), owner="")
    return asked.conversation


def told_so_far(user_id: int, conversation_id: UUID) -> list[dict[str, str]]:
    """What a model is told of a conversation before the next question. Raises NotFound."""
    conversation = Conversation.objects.filter(user_id=user_id, id=conversation_id).first()
    if conversation is None:
        raise NotFound
    return list(history(visible_branch(conversation)))


def ask_again(user_id: int, message_id: UUID, answer_id: UUID, model: str = "") -> Exchange:
    """Stores another empty answer to the question that ``message_id`` answered; the old answer stays beside it."""
    with transaction.atomic():
        old = message_of(user_id, message_id)
        conversation = _locked(user_id, old.conversation_id)
        question = old.parent
        if old.role != Message.Role.ASSISTANT or question is None:
            raise ChatError("invalid_request", _("Only an answer can be made again."))
        _refuse_if_busy(question.children.all())
        model = model or old.model_name
        _touch(conversation, model, timezone.now())
        answer = _empty_answer(question, model, answer_id)
        branch = _path_to(conversation, question.id)
    return _exchange(conversation, question, answer, branch)


def message_of(user_id: int, message_id: UUID) -> Message:
    message = (
        Message.objects.select_related("conversation", "parent")
        .filter(id=message_id, conversation__user_id=user_id)
        .first()
    )
    if message is None:
        raise NotFound
    return message


def _locked(user_id: int, conversation_id: UUID) -> Conversation:
    """Locked, so that two questions at once become two questions in a row (SQLite's transactions lock by themselves)."""
    found = Conversation.objects.select_for_update().filter(user_id=user_id, id=conversation_id).first()
    if found is None:
        raise NotFound
    return found


def _refuse_if_busy(messages: Iterable[Message]) -> None:
    if any(message.state == Message.State.RUNNING and not is_abandoned(message) for message in messages):
        raise ChatError("conversation_busy", _("The last answer is still being written: wait or stop it."), retry=True)


def _touch(conversation: Conversation, model: str, now: datetime) -> None:
    conversation.model_name, conversation.updated_at = model, now
    conversation.save()


def _empty_answer(question: Message, model: str, answer_id: UUID) -> Message:
    return Message.objects.create(
        id=answer_id,
        conversation_id=question.conversation_id,
        parent=question,
        role=Message.Role.ASSISTANT,
        state=Message.State.RUNNING,
        model_name=model,
        owner=own_identity(),
    )


def _exchange(conversation: Conversation, question: Message, answer: Message, branch: Sequence[Message]) -> Exchange:
    return Exchange(
        conversation=conversation.id,
        title=conversation.title,
        question=question.id,
        answer=answer.id,
        model=answer.model_name,
        content=question.text,
        history=tuple(history(branch)),
    )


def history(branch: Sequence[Message]) -> Iterable[dict[str, str]]:
    """What the model is told. A question whose answer never came is left out with it: chat templates want turns to alternate."""
    for position, message in enumerate(branch):
        follower = branch[position + 1] if position + 1 < len(branch) else None
        unanswered = message.role == Message.Role.USER and follower is not None and not follower.text
        if message.text and not unanswered:
            yield {"role": str(message.role), "content": message.text}


# -- the tree of a conversation ----------------------------------------------------------------------------------------
def visible_branch_ids(conversation: Conversation) -> list[UUID]:
    """From the first question on, the newest child at each step. One query, which reads no texts."""
    rows = conversation.messages.order_by("created_at", "id").values_list("id", "parent_id")
    newest_child: dict[UUID | None, UUID] = {parent: message for message, parent in rows}  # later rows win
    branch: list[UUID] = []
    step = newest_child.get(None)
    while step is not None:
        branch.append(step)
        step = newest_child.get(step)
    return branch


def visible_branch(conversation: Conversation) -> list[Message]:
    ids = visible_branch_ids(conversation)
    found = conversation.messages.in_bulk(ids)
    return [found[id_] for id_ in ids if id_ in found]


def _path_to(conversation: Conversation, message_id: UUID) -> list[Message]:
    """From the first question down to ``message_id``, which need not be on the visible branch."""
    parents = dict(conversation.messages.values_list("id", "parent_id"))
    path: list[UUID] = []
    step: UUID | None = message_id
    while step is not None:
        path.append(step)
        step = parents[step]
    found = conversation.messages.in_bulk(path)
    return [found[id_] for id_ in reversed(path)]


# -- what a generation stores ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an answer is at one moment."""

    message: UUID
    state: str
    text: str
    reasoning: str
    error: dict[str, Any] | None = None
    stats: dict[str, Any] | None = None


def save_many(snapshots: Sequence[Snapshot]) -> set[UUID]:
    """Stores them in one transaction; returns those that are no longer there or were ended by somebody else."""
    gone = set()
    with transaction.atomic():
        for snapshot in snapshots:
            running = Message.objects.filter(id=snapshot.message, state=Message.State.RUNNING)
            if not running.update(
                state=snapshot.state,
                text=snapshot.text,
                reasoning=snapshot.reasoning,
                error=snapshot.error,
                stats=snapshot.stats,
            ):
                gone.add(snapshot.message)
    return gone


def is_abandoned(message: Message) -> bool:
    """Whether nobody writes this running message any more."""
    too_old = timezone.now() - message.created_at > LONGEST_GENERATION + GRACE
    return too_old or not message.owner or is_gone(message.owner)


def interrupt(message: Message) -> None:
    """Ends a running message that nobody writes any more; the text so far stays. Does nothing when it has ended meanwhile."""
    error = {"code": "interrupted", "message": "", "retry": True}
    state = Message.State.ERROR
    if Message.objects.filter(id=message.id, state=Message.State.RUNNING).update(state=state, error=error):
        message.state, message.error = state, error
    else:
        message.refresh_from_db()


def stop_elsewhere(message: Message) -> None:
    """Ends a message that another web process writes: its next save finds it ended, and it stops there."""
    Message.objects.filter(id=message.id, state=Message.State.RUNNING).update(state=Message.State.STOPPED)
