"""Answers as the database has them: for those who come back late, and for answers that another web process writes."""

from __future__ import annotations

import asyncio

from channels.db import database_sync_to_async

from chat import markdown, selectors
from chat.live import Event, Live, Recording
from chat.models import Message
from chat.transcript import Transcript

LOOK_EVERY = 1.0  # seconds; the writer stores about that often


def recording_of(message: Message) -> Recording:
    """Sequence numbers are those it had while it was written. One that lost its writer ends as interrupted."""
    recording = Recording(message.id, message.conversation_id)
    update(recording, message)
    return recording


def update(recording: Recording, message: Message) -> None:
    """Takes in what the row says now."""
    selectors.end_if_abandoned(message)
    for piece in Transcript(message.reasoning, message.text).since(recording.transcript.seq):
        recording.transcript.append(piece.kind, piece.text)
    recording.rendered = recording.transcript.seq, markdown.render(message.text)
    recording.ending = _ending(message, recording.rendered[1])


def _ending(message: Message, html: str) -> Event | None:
    if message.state == Message.State.RUNNING:
        return None
    if message.state == Message.State.ERROR:
        return {"type": "error", **(selectors.shown_error(message.error) or {})}
    return {"type": "done", "state": message.state, "usage": {}, "timings": {}, **(message.stats or {}), "html": html}


async def follow(recording: Recording, live: Live) -> None:
    """Keeps a recording of another process's answer up to date until it ends."""
    while recording.ending is None:
        await asyncio.sleep(LOOK_EVERY)
        await database_sync_to_async(_look)(recording)
        live.wake(recording.conversation)


def _look(recording: Recording) -> None:
    message = Message.objects.filter(id=recording.message).first()
    if message is None:
        recording.ending = {"type": "error", **selectors.deleted_error()}
    else:
        update(recording, message)
