from __future__ import annotations

import asyncio
import itertools
import json
import os
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.test import AsyncClient

from cluster import log_following, log_reading
from cluster.log_following import Events
from cluster.log_reading import BLOCK, MAX_LINE, Follower, LogQuery, lines_backwards, recent
from tests.api_callers import assert_error, client_of, forbidden_below, statuses, token_of

URL = "/api/v1/logs"
START = datetime(2026, 1, 1, tzinfo=UTC)


def entry(number: int, level: str = "INFO", source: str = "web", **more: object) -> str:
    time = (START + timedelta(seconds=number)).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "source": source, "message": f"line {number}", **more}) + "\n"


@pytest.fixture
def log(settings, tmp_path):
    settings.LOG_DIR = tmp_path
    return tmp_path / "llm-app.log"


def messages(**query: object) -> list[str]:
    response = client_of("operator").get(URL, query)
    assert response.status_code == 200, response.content
    return [row["message"] for row in response.json()["entries"]]


@pytest.mark.django_db
class TestReading:
    def test_only_operators(self, log):
        assert statuses("get", URL) == {**forbidden_below("operator"), "operator": 200, "admin": 200}

    def test_no_log_yet_is_an_empty_list(self, log):
        assert messages() == []

    def test_the_last_lines_oldest_first(self, log):
        log.write_text("".join(entry(number) for number in range(5000)))
        assert messages(lines=2) == ["line 4998", "line 4999"]
        assert len(messages(lines=5000)) == 5000
        assert len(messages()) == 200

    def test_rotated_files_are_read_on(self, log):
        log.with_name("llm-app.log.2").write_text(entry(1))
        log.with_name("llm-app.log.1").write_text(entry(2))
        log.write_text(entry(3))
        assert messages() == ["line 1", "line 2", "line 3"]

    def test_level_is_this_one_and_worse(self, log):
        log.write_text(entry(1, "DEBUG") + entry(2, "WARNING") + entry(3) + entry(4, "ERROR") + entry(5, "CRITICAL"))
        assert messages(level="WARNING") == ["line 2", "line 4", "line 5"]

    def test_source_and_since(self, log):
        log.write_text("".join(entry(number, source="web" if number % 2 else "supervisor") for number in range(200)))
        assert messages(source="supervisor", lines=1) == ["line 198"]
        since = (START + timedelta(seconds=195)).isoformat()
        assert messages(since=since) == [f"line {number}" for number in range(195, 200)]
        assert messages(since=since, source="web", q="199") == ["line 199"]

    @pytest.mark.parametrize(
        ("sought", "found"),
        [
            ("50% .*", ["at 50% .* done"]),
            ("模型", ["启动模型"]),
            ('SAY "hi"', ['say "hi"']),
            ("%", ["at 50% .* done"]),
            ("message", []),
            ("back\\slash", ["back\\slash"]),
            ("[", []),
        ],
    )
    def test_q_is_plain_text_in_values(self, log, sought, found):
        texts = ["at 50% .* done", "启动模型", 'say "hi"', "back\\slash"]
        log.write_text("".join(json.dumps({"message": text}, ensure_ascii=False) + "\n" for text in texts), "utf-8")
        assert messages(q=sought) == found

    def test_broken_lines_are_shown_and_harm_nothing(self, log):
        log.write_bytes(entry(1).encode() + b'{"time": "2026-\n[1]\n\xff\xfe\x00\n\n' + entry(2).encode() + b'{"half')
        assert messages() == ["line 1", '{"time": "2026-', "[1]", "��\x00", "line 2", '{"half']
        assert messages(level="INFO") == ["line 1", "line 2"]

    def test_a_secret_in_a_foreign_line_is_not_shown(self, log):
        log.write_text("Authorization: Bearer abcdefghijkl\n")
        assert "abcdefghijkl" not in messages()[0]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ({"lines": 0}, "lines"),
            ({"lines": 5001}, "lines"),
            ({"lines": "x"}, "lines"),
            ({"level": "LOUD"}, "level"),
            ({"since": "yesterday"}, "since"),
            ({"q": "x" * 201}, "q"),
            ({"folow": 1}, "folow"),
            ({"follow": 7}, "follow"),
        ],
    )
    def test_wrong_queries_name_the_field(self, log, query, field):
        error = assert_error(client_of("operator").get(URL, query), 400, "invalid_request")
        assert list(error["details"]) == [field]

    def test_an_event_source_without_rights_gets_json(self, log):
        response = client_of("user").get(URL, {"follow": 1}, HTTP_ACCEPT="text/event-stream")
        assert_error(response, 403, "permission_denied")


class TestBackwards:
    def test_lines_across_blocks_come_whole(self, tmp_path):
        lines = [f"{number}:".encode() + b"x" * (number * 37 % 3000) for number in range(1, 300)]
        path = tmp_path / "log"
        path.write_bytes(b"\n".join(lines) + b"\n")
        assert path.stat().st_size > 3 * BLOCK
        with path.open("rb") as stream:
            assert list(lines_backwards(stream, path.stat().st_size)) == lines[::-1]

    def test_an_endless_line_costs_no_memory(self, tmp_path):
        path = tmp_path / "log"
        path.write_bytes(b"first\n" + b"y" * (10 * MAX_LINE) + b"\nlast\n")
        with path.open("rb") as stream:
            found = list(lines_backwards(stream, path.stat().st_size))
        assert (found[0], found[-1]) == (b"last", b"first")
        assert max(map(len, found)) <= MAX_LINE + BLOCK

    def test_only_the_end_of_a_large_file_is_read(self, tmp_path, monkeypatch):
        path = tmp_path / "log"
        path.write_text("".join(entry(number) for number in range(20_000)))
        read = []
        monkeypatch.setattr(log_reading, "parse_line", lambda line: read.append(line) or json.loads(line))
        assert len(recent(path, LogQuery(), 10)) == 10
        assert len(read) == 10

    def test_a_search_for_something_rare_ends(self, tmp_path, monkeypatch):
        path = tmp_path / "log"
        path.write_text(entry(0, note="needle") + "".join(entry(number) for number in range(2000)))
        assert len(recent(path, LogQuery(q="needle"), 10)) == 1
        monkeypatch.setattr(log_reading, "MAX_SCANNED", 10_000)
        assert recent(path, LogQuery(q="needle"), 10) == []


class TestFollower:
    def test_only_complete_new_lines_come(self, tmp_path):
        path = tmp_path / "log"
        path.write_text("old\n")
        follower = Follower(path)
        with path.open("a") as stream:
            stream.write("new\nhal")
            stream.flush()
            assert follower.read() == [b"new"]
            stream.write("f\n")
        assert follower.read() == [b"half"]
        follower.close()

    def test_through_rotation_truncation_and_a_late_start(self, tmp_path):
        path = tmp_path / "log"
        follower = Follower(path)
        assert follower.read() == []
        path.write_text("one\n")
        assert follower.read() == [b"one"]
        with path.open("a") as stream:
            stream.write("two\n")
        os.replace(path, tmp_path / "log.1")
        path.write_text("three\n")
        lines = [line for _ in range(4) for line in follower.read()]
        assert lines == [b"two", b"three"]
        path.write_text("4\n")
        assert follower.read() == [b"4"]
        follower.close()


@pytest.mark.django_db(transaction=True)
class TestFollowing:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(log_following, "POLL_SECONDS", 0.01)

    @staticmethod
    async def open(query: str = ""):
        token = await sync_to_async(token_of)("operator")
        return await AsyncClient().get(f"{URL}?follow=1{query}", headers={"Authorization": f"Bearer {token}"})

    @staticmethod
    async def next_messages(events) -> list[str]:
        """The messages of the next piece that holds any."""
        while True:
            piece = await asyncio.wait_for(anext(events), 10)
            if found := [
                json.loads(line[6:])["message"] for line in piece.decode().splitlines() if line[:6] == "data: "
            ]:
                return found

    async def test_first_the_last_lines_then_what_comes(self, log):
        log.write_text(entry(1) + entry(2) + entry(3))
        response = await self.open("&lines=2")
        assert response["Content-Type"] == "text/event-stream"
        async with aclosing(aiter(response)) as events:
            assert await self.next_messages(events) == ["line 2", "line 3"]
            with log.open("a") as stream:
                stream.write(entry(4))
            assert await self.next_messages(events) == ["line 4"]

    async def test_filters_hold_for_what_comes_too(self, log):
        response = await self.open("&level=ERROR&q=boom")
        async with aclosing(aiter(response)) as events:
            await anext(events)
            log.write_text(entry(1, "ERROR") + entry(2, note="boom") + entry(3, "ERROR", note="Boom!"))
            assert await self.next_messages(events) == ["line 3"]

    async def test_a_client_that_goes_away_is_forgotten(self, log):
        log.write_text(entry(1))
        token = await sync_to_async(token_of)("operator")
        headers = [(b"authorization", f"Bearer {token}".encode()), (b"host", b"localhost")]
        scope = {"type": "http", "method": "GET", "path": URL, "query_string": b"follow=1", "headers": headers}
        client = ApplicationCommunicator(get_asgi_application(), scope | {"http_version": "1.1"})
        await client.send_input({"type": "http.request", "body": b"", "more_body": False})
        assert (await client.receive_output(10))["status"] == 200
        assert b"line 1" in (await client.receive_output(10))["body"]
        (events,) = Events.following
        await client.send_input({"type": "http.disconnect"})
        await client.wait(10)
        assert not Events.following
        assert events._follower._stream is None

    async def test_followers_are_bounded(self, log, monkeypatch):
        monkeypatch.setattr(log_following, "MAX_FOLLOWERS", 1)
        first = await self.open()
        refused = await self.open()
        assert refused.status_code == 503
        assert refused["Retry-After"] == "30"
        first.close()
        (await self.open()).close()

    async def test_it_ends_after_its_time_and_says_that_it_lives_meanwhile(self, log, monkeypatch):
        monkeypatch.setattr(log_following, "KEEPALIVE_SECONDS", 0.0)
        monkeypatch.setattr(log_following, "MAX_SECONDS", 5)
        monkeypatch.setattr(log_following, "time", SimpleNamespace(monotonic=itertools.count().__next__))
        pieces = [piece async for piece in await self.open()]
        assert b": still here\n\n" in pieces
