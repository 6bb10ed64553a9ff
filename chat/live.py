"""Answers being written in this web process, and who follows them.

    Recording    what one answer consists of so far: pieces of text, its phase, its HTML, how it ended
    Cursor       how far one follower has got in a recording; following is nothing but asking for what comes after it
    Follower     whoever wants to be woken when a conversation has news
    Live         all recordings of this process and all followers

Followers pull. A recording never queues anything for anybody, so a slow socket costs a cursor and no memory, several tabs get
the same events, and going on after a cut is a cursor set to the last sequence number seen. In this process only: whoever is
connected to another web process follows what the database says (``chat.recordings``), until a channel layer carries ``wake``.

Everything is called from the event loop's thread, except ``get``, ``is_known`` and ``Transcript.snapshot``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from django.utils.translation import gettext as _

from chat.services import ChatError
from chat.transcript import Transcript

Event = dict[str, Any]

MOST_RUNNING_PER_USER = 4


@dataclass(slots=True)
class Cursor:
    seq: int = 0
    phase: int = 0
    rendered: int = -1
    ended: bool = False


@dataclass(slots=True)
class Recording:
    """``phases`` holds the latest event of each type (queued, started, progress) with its number, ``ending`` done or error."""

    message: UUID
    conversation: UUID
    transcript: Transcript = field(default_factory=Transcript)
    phases: dict[str, tuple[int, Event]] = field(default_factory=dict)
    rendered: tuple[int, str] = (0, "")
    ending: Event | None = None

    def set_phase(self, event: Event) -> None:
        number = 1 + max((number for number, _event in self.phases.values()), default=0)
        self.phases[event["type"]] = number, event

    def events_after(self, cursor: Cursor) -> Iterator[Event]:
        """What is new since ``cursor``, in order; moves the cursor to the end."""
        for event in self._bare_events_after(cursor):
            # An error's ``message`` is what a person reads, so there the id has another name.
            id_name = "message_id" if event["type"] == "error" else "message"
            yield {**event, "conversation": str(self.conversation), id_name: str(self.message)}

    def _bare_events_after(self, cursor: Cursor) -> Iterator[Event]:
        yield from self._phases_after(cursor)
        for piece in self.transcript.since(cursor.seq):
            cursor.seq = piece.seq
            yield {"type": piece.kind, "seq": piece.seq, "text": piece.text}
        seq, html = self.rendered
        if seq > max(cursor.rendered, 0):
            cursor.rendered = seq
            yield {"type": "render", "seq": seq, "html": html}
        if self.ending is not None and not cursor.ended:
            cursor.ended = True
            yield self.ending

    def _phases_after(self, cursor: Cursor) -> Iterator[Event]:
        new = sorted((number, event) for number, event in self.phases.values() if number > cursor.phase)
        for number, event in new:
            cursor.phase = number
            if self.ending is None or event["type"] == "started":
                yield event

    def cursor_for_newcomer(self) -> Cursor:
        """For one who has seen nothing: the HTML so far and the text after it, unless there is reasoning to be told as well."""
        reasons = any(piece.kind == "reasoning" for piece in self.transcript.since(0))
        return Cursor() if reasons else Cursor(seq=self.rendered[0])


class Follower(Protocol):
    def wake(self) -> None:
        """Something may be new in a recording you follow."""

    def tell(self, event: Event) -> None:
        """An event of a conversation you follow, which belongs to no recording."""

    def follow(self, recording: Recording, cursor: Cursor) -> None:
        """A recording that begins in a conversation you follow."""


class Live:
    def __init__(self) -> None:
        self._recordings: dict[UUID, Recording] = {}
        self._running: dict[UUID, int] = {}  # message → user; entered before the message is in the database
        self._followers: dict[UUID, set[Follower]] = {}

    # -- what is being written -----------------------------------------------------------------------------------------
    def reserve(self, message: UUID, user_id: int) -> None:
        """Counts the message as running from now on. Raises ChatError when the user has enough of them."""
        if list(self._running.values()).count(user_id) >= MOST_RUNNING_PER_USER:
            raise ChatError(
                "too_many_answers", _("Too many answers are being written for you: wait or stop one."), retry=True
            )
        self._running[message] = user_id

    def release(self, message: UUID) -> None:
        self._running.pop(message, None)

    def add(self, recording: Recording) -> None:
        self._recordings[recording.message] = recording

    def forget(self, message: UUID) -> None:
        self._recordings.pop(message, None)

    def get(self, message: UUID) -> Recording | None:
        return self._recordings.get(message)

    def is_known(self, message: UUID) -> bool:
        return message in self._running or message in self._recordings

    def in_conversation(self, conversation: UUID) -> list[Recording]:
        return [recording for recording in self._recordings.values() if recording.conversation == conversation]

    # -- who follows ---------------------------------------------------------------------------------------------------
    def subscribe(self, conversation: UUID, follower: Follower) -> None:
        self._followers.setdefault(conversation, set()).add(follower)

    def unsubscribe(self, conversation: UUID, follower: Follower) -> None:
        followers = self._followers.get(conversation, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(conversation, None)

    def is_followed(self, conversation: UUID) -> bool:
        return conversation in self._followers

    def wake(self, conversation: UUID) -> None:
        for follower in self._followers.get(conversation, ()):
            follower.wake()

    def begin(self, recording: Recording, accepted: Event) -> None:
        """Tells everybody in the conversation that ``recording`` begins."""
        self.add(recording)
        for follower in self._followers.get(recording.conversation, ()):
            follower.tell(accepted)
            follower.follow(recording, Cursor())


live = Live()
