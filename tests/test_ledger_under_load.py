"""The ledger while clients leave at any moment and processes are killed; bench/ledger_load.py is the same with more of all."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import ledger_load, standin
from tests.ledger_load import MODEL, PRICE, Size
from tests.postgres_server import PROGRAMS, PostgresServer, running_postgres
from tests.running_service import Service, wait_for
from tests.standin import truth

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"] if PROGRAMS else ["sqlite"])
def database(request: pytest.FixtureRequest) -> PostgresServer | None:
    return request.getfixturevalue("postgres") if request.param == "postgresql" else None


@pytest.fixture(scope="module")
def folder(database: PostgresServer | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def service(database: PostgresServer | None, folder: Path) -> Iterator[Service]:
    with ledger_load.service(folder, **({"DATABASE_URL": database.url} if database else {})) as started:
        yield started


def test_what_clients_got_is_paid_once_to_the_micro_credit_whoever_is_killed(service: Service, folder: Path) -> None:
    outcome = ledger_load.run(service, Size(), folder / "journal", sweep=True)
    assert outcome.books["problems"] == []
    assert {what: count for what, count in outcome.findings().items() if count} == {}
    assert sum(one.finished for one in outcome.asked) > 50
    assert outcome.books["settled"] > 100 * PRICE


@contextlib.contextmanager
def away(service: Service, database: PostgresServer | None) -> Iterator[None]:
    """PostgreSQL is stopped; an SQLite file is locked by somebody else."""
    if database is not None:
        database.stop()
        yield
        database.start()
        return
    with contextlib.closing(sqlite3.connect(service.home / "llm.db", timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def settled(service: Service) -> dict[str, Any]:
    """The books once no hold is open."""
    found = lambda: books if not (books := ledger_load.books(service))["holds"] else None  # noqa: E731
    return wait_for(found, "the settlements", 60)


def events(lines: Iterator[str]) -> Iterator[str]:
    return (line.removeprefix("data: ") for line in lines if line.startswith("data: "))


def test_a_database_that_goes_away_in_mid_stream_costs_nobody_anything(
    service: Service, folder: Path, database: PostgresServer | None
) -> None:
    """The answer goes on, newcomers are told to come back, and what was used is settled when the database is there again."""
    key = ledger_load.make_keys(service, {"late": {}})["late"]
    standin.set_switches(folder / "llama-server", **ledger_load.switches(folder, token_seconds=0.1))
    body = {"model": MODEL, "messages": [{"role": "user", "content": truth.mark("late")}], "stream": True}
    with service.client(key) as client:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            told = events(answer.iter_lines())
            first = next(told)
            with away(service, database):
                rest = list(told)
                if database is not None:
                    refused = client.post("/v1/chat/completions", json={**body, "stream": False})
                    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
        assert "error" not in first
        assert rest[-1] == "[DONE]"
        request_id = answer.headers["x-request-id"]
        books = settled(service)
        [attempt] = truth.read(folder / "journal")["late"]
        assert books["problems"] == []
        assert books["requests"][request_id] == PRICE * (attempt.prompt + attempt.answer)
        standin.set_switches(folder / "llama-server", **ledger_load.switches(folder))
        answers = wait_for(lambda: client.post("/v1/chat/completions", json={**body, "stream": False}), "an answer")
        assert answers.status_code == 200


def test_a_thousand_at_once_on_a_balance_worth_ten(service: Service, folder: Path) -> None:
    """As many are answered as can be paid, the others are told why not, and nothing is overdrawn."""
    keys = ledger_load.make_keys(service, {"one": {}})
    asyncio.run(ledger_load.all_at_once(service, keys["one"], 1))
    hold = settled(service)["largest_hold"]["one"]
    keys = ledger_load.make_keys(service, {"ten": {"balance": 10 * hold}})
    told = asyncio.run(ledger_load.all_at_once(service, keys["ten"], 1000))
    answered = [status for status, _tokens in told].count(200)
    assert {status for status, _tokens in told} == {200, 429}
    assert answered >= 10
    books = settled(service)
    assert books["problems"] == []
    assert books["spent"]["ten"] == PRICE * sum(tokens for _status, tokens in told) <= 10 * hold
