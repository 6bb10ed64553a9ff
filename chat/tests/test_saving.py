"""Answers on their way into the database, while it is away or will not take one of them."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest
from django.db import DataError, OperationalError

from chat import saving, services
from chat.models import Message
from chat.saving import Saver
from chat.services import Snapshot

pytestmark = pytest.mark.django_db


def snapshot(message: uuid.UUID, text: str, state: str = Message.State.RUNNING) -> Snapshot:
    return Snapshot(message, state, text, "")


class Database:
    """Stands where the writing is done, and can be away."""

    def __init__(self) -> None:
        self.kept: dict[uuid.UUID, str] = {}
        self.away = threading.Event()
        self.refused = threading.Event()

    def save_many(self, snapshots: list[Snapshot]) -> set[uuid.UUID]:
        if self.away.is_set():
            self.refused.set()
            raise OperationalError("the server closed the connection")
        if any("\x00" in one.text for one in snapshots):
            raise DataError("no NUL")
        self.kept.update({one.message: one.text for one in snapshots})
        return set()


@pytest.fixture
def database(monkeypatch) -> Database:
    database = Database()
    monkeypatch.setattr(services, "save_many", database.save_many)
    monkeypatch.setattr(saving, "FIRST_PAUSE", 0)
    monkeypatch.setattr(saving, "LONGEST_PAUSE", 0)
    return database


async def test_what_the_database_could_not_take_is_written_when_it_is_back(database):
    saver, message, other = Saver(), uuid.uuid4(), uuid.uuid4()
    database.away.set()
    writes = [
        asyncio.create_task(saver.save(snapshot(message, "half"))),
        asyncio.create_task(saver.save(snapshot(other, "o"))),
    ]
    await asyncio.to_thread(database.refused.wait, 10)
    writes.append(asyncio.create_task(saver.save(snapshot(message, "whole", Message.State.DONE))))
    await asyncio.sleep(0)
    assert not any(write.done() for write in writes)
    database.away.clear()
    assert await asyncio.gather(*writes) == [True, True, True]
    assert database.kept == {message: "whole", other: "o"}


async def test_one_answer_that_cannot_be_stored_does_not_spoil_the_others(database):
    saver, bad, good = Saver(), uuid.uuid4(), uuid.uuid4()
    assert await asyncio.gather(saver.save(snapshot(bad, "\x00")), saver.save(snapshot(good, "g"))) == [False, True]
    assert database.kept == {good: "g"}
