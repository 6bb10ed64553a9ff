"""Who is acting, and what of a change is told."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import psutil
import pytest
from asgiref.sync import async_to_sync, sync_to_async

from llmplatform.lib import audit
from llmplatform.lib.audit import CHANGED, Actor, Event, difference, is_secret


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    events: list[Event] = []
    monkeypatch.setattr(audit, "_sink", events.extend)
    return events


def acting(name: str):
    return audit.acting(lambda: Actor(name=name))


# -- what ----------------------------------------------------------------------------------------------------------------
def test_only_what_differs_is_told():
    before = {"name": "tiny", "active": True, "threads": None, "note": ""}
    assert difference(before, {"name": "tiny", "active": False, "threads": 4, "note": None}) == {
        "active": [True, False],
        "threads": [None, 4],
    }


def test_nothing_is_told_when_nothing_differs_unless_it_is_an_event(told: list[Event]):
    audit.record("model.update", "model", 1, "tiny", {"active": True}, {"active": True})
    audit.record("model.update", "model", 1, "tiny", {}, {})
    assert told == []
    audit.record("model.restart", "model", 1, "tiny")
    audit.record("model.start", "model", 1, "tiny", {"active": True}, {"active": True}, event=True)
    assert [(event.action, event.changes) for event in told] == [("model.restart", {}), ("model.start", {})]


@pytest.mark.parametrize(
    "name",
    ["password", "old_password", "apiKey", "api_key", "hash", "key_nonce", "clientSecret", "TOKEN", "JWT_SECRET", "APIKey",
     "extra.headers.Authorization", "secrets.anything", "totp", "session"],
)  # fmt: skip
def test_secrets_are_known_by_their_names(name: str):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "tokens_per_minute", "key_id", "key_name", "keyboard", "description", "prompt_price", "hashes_seen"],
)
def test_what_only_sounds_like_one_is_told(name: str):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"password": "pbkdf2$old"}, {"password": "pbkdf2$new"}),
        ({}, {"password": "pbkdf2$new"}),
        ({"password": "pbkdf2$old"}, {}),
        ({"extra": {"apiKey": "old"}}, {"extra": {"apiKey": "new"}}),
        ({"secret": ["old"]}, {"secret": ["new", {"a": "new"}]}),
        ({"servers": []}, {"servers": [{"url": "x", "apiKey": "new"}]}),
        ({"token": 111}, {"token": 222}),
        ({"a": {"b": {"c": {"d": {"password": "old"}}}}}, {"a": {"b": {"c": {"d": {"password": "new", "e": 1}}}}}),
    ],
)
def test_a_secret_is_never_told(before: dict, after: dict):
    changes = json.dumps(difference(before, after))
    assert CHANGED in changes
    for value in ("old", "new", "111", "222"):
        assert value not in changes.replace("new_password", "")


def test_whether_a_password_must_change_is_no_secret():
    assert difference({"must_change_password": True}, {"must_change_password": False}) == {
        "must_change_password": [True, False]
    }


def test_nested_values_are_told_part_by_part():
    assert difference({"extra": {"a": 1, "b": 2}}, {"extra": {"a": 1, "b": 3}}) == {"extra.b": [2, 3]}


def test_values_of_every_kind_can_be_stored():
    values = {
        "time": datetime(2026, 3, 1, tzinfo=UTC),
        "amount": Decimal("1.5"),
        "many": {"b", "a"},
        "far": float("inf"),
        "row": object,
        "text": "nul \x00 and half \ud800 a pair",
        "list": ["nul \x00"],
    }
    changes = difference({}, values)
    text = json.dumps(changes, ensure_ascii=False)
    text.encode("utf-8")
    assert "\x00" not in str(changes)
    assert "\\u0000" not in json.dumps(changes["text"])
    assert changes["time"] == [None, "2026-03-01T00:00:00+00:00"]
    assert changes["many"] == [None, ["a", "b"]]


def test_what_is_told_has_bounds(told: list[Event]):
    fields = {f"field{number}": "x" * 100_000 for number in range(1000)}
    fields["field0"], fields["field1"] = ["y" * 10_000] * 100, {"deep": "z" * 100_000}
    audit.record("model.create", "model", "i" * 1000, "n" * 1000, after=fields)
    (event,) = told
    assert len(json.dumps(event.changes)) < 50_000
    assert event.changes["field2"][1].endswith("… (+99500)")
    assert event.changes["…"] == [None, "+940"]
    assert (len(event.target_id), len(event.target_name)) == (64, 200)


def test_a_name_cannot_look_like_something_else(told: list[Event]):
    audit.record("user.login_failed", "user", "", "evil\r\n\x1b[31m\u202eadmin", after={"reason": "credentials"})
    assert told[0].target_name == "evil\ufffd\ufffd\ufffd[31m\ufffdadmin"


# -- who -----------------------------------------------------------------------------------------------------------------
def test_a_command_is_told_with_the_user_of_the_system(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("USER", "somebody-else")
    monkeypatch.delenv("LLM_PROCESS", raising=False)
    assert audit.actor() == Actor(name=f"command:{psutil.Process().username()}")
    monkeypatch.setenv("LLM_PROCESS", "supervisor")
    assert audit.actor().name == "service:supervisor"


def test_an_actor_ends_with_its_block():
    before = audit.actor()
    with suppress(ValueError), acting("anna"):
        assert audit.actor().name == "anna"
        raise ValueError
    assert audit.actor() == before


def test_threads_do_not_see_each_others_actors(told: list[Event]):
    together = threading.Barrier(2)

    def work(name: str) -> None:
        with acting(name):
            for _time in range(20):
                together.wait()
                audit.record("model.restart", "model", 1, name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("anna", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 40
    assert all(event.actor.name == event.target_name for event in told)


def test_tasks_and_their_threads_do_not_see_each_others_actors(told: list[Event]):
    """As a web server under ASGI: middleware in a task, the view in a thread, others in between."""

    async def request(name: str, arrived: asyncio.Barrier) -> None:
        with acting(name):
            await arrived.wait()
            await sync_to_async(audit.record)("model.restart", "model", 1, name)
            await arrived.wait()
            audit.record("model.restart", "model", 1, name)
        await arrived.wait()
        audit.record("model.restart", "model", 1, outside)

    async def all_of_them() -> None:
        arrived = asyncio.Barrier(5)
        await asyncio.gather(*(request(f"person{number}", arrived) for number in range(5)))

    outside = audit.actor().name
    async_to_sync(all_of_them)()
    assert len(told) == 15
    assert all(event.actor.name == event.target_name for event in told)
