"""What an answer costs by how it ended: one test for each row of the table in docs/accounts.md.

What is right is told by the stand-in for the engine, which notes what it really read and delivered (tests/standin/journal.py).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from accounts import journal, quota
from gateway.tests.conftest import CONTEXT, Service, hold, python_in, until, web
from tests.standin import truth

pytestmark = pytest.mark.e2e

PRICE = 1000
LONG = "word " * 100
ROWS: dict[str, Callable[..., None]] = {}
_numbers = itertools.count()


def row(text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Says which row of the table a test is for."""

    def register(test: Callable[..., None]) -> Callable[..., None]:
        assert text not in ROWS, "two tests for one row"
        ROWS[text] = test
        return test

    return register


@dataclass
class Asked:
    """A request: ``answer`` (none if the client left), what the engine did for it, and what it came to."""

    answer: httpx.Response | None
    attempts: list[truth.Attempt]
    tokens: tuple[int, int]  # prompt and answer, as charged
    cost: int
    outcome: str

    @property
    def really(self) -> tuple[int, int]:
        [attempt] = [attempt for attempt in self.attempts if attempt.prompt]
        return attempt.prompt, attempt.answer


class Asker:
    """Asks with a mark of its own each time, and looks up what became of it."""

    def __init__(self, service: Service, journal: Path) -> None:
        self.service, self.journal = service, journal
        for standin in service.standins.values():
            standin.tell(journal=str(journal))

    def tell(self, name: str, **switches: object) -> None:
        self.service.standins[name].tell(**switches)

    def text(self) -> str:
        self.mark = f"row-{next(_numbers)}"
        return f"{truth.mark(self.mark)} {LONG}"

    def body(self, **fields: object) -> dict[str, object]:
        return {"model": "alpha", "messages": [{"role": "user", "content": self.text()}], **fields}

    def post(self, path: str = "/v1/chat/completions", user: str = "ann", **body: object) -> Asked:
        with self.service.http(user) as http:
            return self.found(http.post(path, json=body or self.body()))

    def connection(self, **fields: object) -> socket.socket:
        """A request that is sent; when it is closed its client hangs up."""
        return hold(self.service, **{"stream": False, **self.body(**fields)})

    def all_ended(self) -> bool:
        """Whether each stand-in that was asked has noted how much it made."""
        return {entry["state"] for entry in self.seen()} <= {"closed", "done"}

    def leave(self, when: Callable[[], bool] | bytes, **fields: object) -> Asked:
        """Asks, and hangs up when something is so, or has come."""
        before = self.last_record()
        with self.connection(**fields) as connection:
            if isinstance(when, bytes):
                with connection.makefile("rb") as lines:
                    assert any(when in line for line in lines)
            else:
                until(when)
        until(lambda: self.last_record() > before and self.all_ended())
        return self.charged("SELECT * FROM accounts_usagerecord WHERE id = ?", self.last_record(), None)

    def found(self, answer: httpx.Response) -> Asked:
        request_id = answer.headers["x-request-id"]
        self.service.usage(request_id)
        return self.charged("SELECT * FROM accounts_usagerecord WHERE request_id = ?", request_id, answer)

    def charged(self, sql: str, key: object, answer: httpx.Response | None) -> Asked:
        """What the usage record says; the ledger must say the same, and what was held must have been enough."""
        [record] = self.service.rows(sql, key)
        [entry] = self.service.rows(
            "SELECT * FROM accounts_ledgerentry WHERE kind = 'settle' AND request_id = ?", record["request_id"]
        )
        assert entry["cost"] == record["cost"] == -(entry["available_change"] + entry["held_change"])
        assert entry["cost"] <= -entry["held_change"], "it cost more than was held for it"
        tokens = record["prompt_tokens"], record["completion_tokens"]
        return Asked(answer, self.attempts(), tokens, record["cost"], record["outcome"])

    def attempts(self) -> list[truth.Attempt]:
        return truth.read(self.journal).get(self.mark, [])

    def reading(self) -> bool:
        """Whether the engine has this request."""
        return any(entry["state"] == "running" for entry in self.seen())

    def seen(self) -> list[dict]:
        everything = itertools.chain.from_iterable(s.seen() for s in self.service.standins.values())
        return [entry for entry in everything if truth.mark(self.mark) in json.dumps(entry["body"])]

    def delivered(self, tokens: int) -> Callable[[], bool]:
        return lambda: any(attempt.answer >= tokens for attempt in self.attempts())

    def last_record(self) -> int:
        return self.service.rows("SELECT MAX(id) AS last FROM accounts_usagerecord")[0]["last"] or 0


@pytest.fixture
def ask(service: Service, tmp_path: Path) -> Iterator[Asker]:
    return Asker(service, tmp_path / "journal")


def assert_free(asked: Asked) -> None:
    assert (asked.tokens, asked.cost) == ((0, 0), 0)


def assert_true_price(asked: Asked) -> None:
    """The tokens the engine really read and delivered, and nothing else."""
    assert asked.tokens == asked.really
    assert asked.cost == sum(asked.really) * PRICE > 0


# -- nothing was done ----------------------------------------------------------------------------------------------------
@row("refused: a field that is wrong, a prompt that is too long")
def test_refused_by_the_engine(ask: Asker) -> None:
    asked = ask.post(**ask.body(messages=[{"role": "user", "content": "word " * 3000}]))
    assert asked.answer.status_code == 400
    assert_free(asked)


@row("refused: the balance is too small")
def test_refused_by_the_balance(ask: Asker) -> None:
    before = ask.last_record()
    with ask.service.http("poor") as http:
        assert http.post("/v1/chat/completions", json=ask.body()).status_code == 429
    assert (ask.last_record(), ask.seen()) == (before, [])


@row("no replica, or no slot in time; the client left while it waited for one")
def test_never_got_a_slot(ask: Asker) -> None:
    asked = ask.post(**ask.body(model="broken"))
    assert asked.answer.status_code == 503
    assert_free(asked)
    ask.tell("narrow", first_token_seconds=60)
    with ask.connection(model="narrow"):
        until(ask.reading)
        asked = ask.leave(lambda: ask.service.metric("llm_requests_queued") == 1, model="narrow")
    assert asked.attempts == []
    assert_free(asked)


@row("the server's fault before the first token")
def test_failed_before_the_first_token(ask: Asker) -> None:
    ask.tell("alpha", error_status=500)
    asked = ask.post()
    assert asked.answer.status_code == 502
    assert_free(asked)
    ask.tell("alpha", error_status=None, error_after=0)  # after the event that names the role
    asked = ask.post(**ask.body(stream=True))
    assert '"upstream_error"' in asked.answer.text
    assert asked.outcome == "failed"
    assert_free(asked)


@pytest.mark.parametrize("how", ["progress", "pings"])
def test_failed_while_it_read_the_prompt(ask: Asker, how: str) -> None:
    ask.tell("alpha", error_in_prompt=2, **{how: 4})
    asked = ask.post(**ask.body(stream=True, return_progress=True))
    assert '"upstream_error"' in asked.answer.text
    assert asked.outcome == "failed"
    assert_free(asked)


@row("counting tokens, cutting text into tokens, listing models")
def test_what_is_free(ask: Asker) -> None:
    before = ask.last_record()
    with ask.service.http() as http:
        assert http.post("/v1/tokenize", json={"model": "alpha", "content": ask.text()}).status_code == 200
        assert http.get("/v1/models").status_code == 200
    assert ask.last_record() == before


# -- it was answered -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [True, False])
@row("it came to its end")
def test_completed(ask: Asker, stream: bool) -> None:
    asked = ask.post(**ask.body(stream=stream))
    assert asked.outcome == "completed"
    assert asked.really[1] == 8
    assert_true_price(asked)


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("how", ["silent", "cut"])
@row("the client left, or the connection broke, after the event that ends the answer")
def test_ended_without_a_last_word(ask: Asker, how: str, usage: bool) -> None:
    """The engine's figures come with that event, or behind it when usage was asked for: then the tokens are counted."""
    ask.tell("alpha", after_finish=how)
    body = ask.body(stream=True, stream_options={"include_usage": usage})
    with ask.service.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if '"finish_reason":"stop"' in line and how == "silent":
                break
            assert "error" not in line
    asked = ask.found(answer)
    assert asked.outcome == "completed"
    assert asked.really[1] == 8
    assert_true_price(asked)


@row("one replica failed before the first byte and another one answered")
def test_another_replica(ask: Asker) -> None:
    ask.tell("first", error_status=500)
    ask.tell("second", error_status=500, error_times=0)
    for _turn in range(2):
        assert_true_price(ask.post(**ask.body(model="twins", stream=True)))


@row("`max_tokens` was cut to what the balance affords (`x-max-tokens` says to what)")
def test_cut_to_the_balance(ask: Asker) -> None:
    before = ask.service.wallet("modest")["available"]
    messages = [{"role": "user", "content": ask.text().replace(LONG, "")}]
    asked = ask.post(user="modest", model="alpha", messages=messages, max_tokens=60, stream=True)
    assert asked.answer.headers["x-max-tokens"] == str(ask.seen()[0]["body"]["max_tokens"])
    assert_true_price(asked)
    until(ask.service.settled)
    assert ask.service.wallet("modest")["available"] == before - asked.cost >= 0


def test_the_models_own_limit_is_cut_to_the_balance_and_told(ask: Asker) -> None:
    """To whoever names no ``max_tokens`` too."""
    messages = [{"role": "user", "content": ask.text().replace(LONG, "")}]
    asked = ask.post(user="modest", model="alpha", messages=messages)
    assert asked.answer.headers["x-max-tokens"] == str(ask.seen()[0]["body"]["max_tokens"])
    assert "x-max-tokens" not in ask.post().answer.headers


@pytest.mark.parametrize("stream", [True, False])
@row("several answers to one prompt (`n`)")
def test_several_answers(ask: Asker, stream: bool) -> None:
    asked = ask.post(**ask.body(stream=stream, n=3, max_tokens=5))
    assert asked.really[1] == 15
    assert_true_price(asked)


@row("embeddings")
def test_embeddings(ask: Asker) -> None:
    asked = ask.post("/v1/embeddings", model="vectors", input=[ask.text(), "two words"])
    assert asked.really[0] == 103
    assert_true_price(asked)
    several = ask.post("/v1/embeddings", model="vectors", input=[ask.text(), *["a " * 1500] * 3])
    assert several.really[0] > CONTEXT
    assert_true_price(several)


@row("rerank")
def test_rerank(ask: Asker) -> None:
    """The query is read again with each document, and each of these may fill the context."""
    asked = ask.post("/v1/rerank", model="vectors", query=f"{ask.text()} {'a ' * 1000}", documents=["b", "c " * 500])
    assert asked.really[0] > CONTEXT
    assert_true_price(asked)


@row("our own form, `/api/v1/models/NAME/chat`")
def test_native_chat(ask: Asker) -> None:
    for stream in (False, True):
        asked = ask.post("/api/v1/models/alpha/chat", message=ask.text(), stream=stream)
        assert asked.answer.status_code == 200
        assert_true_price(asked)


# -- it was not answered to its end --------------------------------------------------------------------------------------
@row("the client left before the first byte")
def test_left_before_the_first_byte(ask: Asker) -> None:
    ask.tell("alpha", first_token_seconds=0.5)
    whole = ask.post(**ask.body(stream=True))
    ask.tell("alpha", first_token_seconds=60)
    asked = ask.leave(ask.reading, stream=True)
    [attempt] = asked.attempts
    assert attempt.prompt < whole.tokens[0]
    assert asked.tokens[0] <= whole.tokens[0]
    assert (asked.tokens[1], asked.cost, asked.outcome) == (0, asked.tokens[0] * PRICE, "cancelled")


@row("the client left while an answer in one piece was made")
def test_left_an_answer_in_one_piece(ask: Asker) -> None:
    whole = ask.post()
    ask.tell("alpha", token_seconds=0.05, chunks=1000)
    asked = ask.leave(lambda: any(attempt.prompt for attempt in ask.attempts()))
    assert asked.tokens == (whole.tokens[0], 0)
    assert asked.cost == whole.tokens[0] * PRICE


@row("the client left after it")
def test_left_in_mid_stream(ask: Asker) -> None:
    ask.tell("alpha", token_seconds=0.02, chunks=64)
    asked = ask.leave(b"word4 ", stream=True)
    [attempt] = asked.attempts
    assert asked.outcome == "cancelled"
    assert asked.tokens[0] == attempt.prompt
    assert 5 <= asked.tokens[1] <= attempt.answer < 64
    assert asked.cost == sum(asked.tokens) * PRICE


@pytest.mark.parametrize("answers", [1, 2])
@row("the server's fault after it")
def test_cut_in_mid_stream(ask: Asker, answers: int) -> None:
    ask.tell("alpha", cut_after=4)
    asked = ask.post(**ask.body(stream=True, n=answers, logprobs=True))
    assert '"upstream_error"' in asked.answer.text
    assert asked.really[1] == 4
    assert_true_price(asked)


@pytest.mark.parametrize("usage", [True, False])
@row("a replica was lost after it, and another one went on with the answer")
def test_gone_on_with(ask: Asker, usage: bool) -> None:
    """What another one reads again is our affair, and so is what was lost on the way when the connection broke."""
    ask.tell("alpha", cut_after=5, chunks=8)
    asked = ask.post(**ask.body(stream=True, stream_options={"include_usage": usage}))
    assert asked.outcome == "completed"
    assert sum(attempt.answer for attempt in asked.attempts) >= 8
    assert asked.tokens == (asked.attempts[0].prompt, 8)
    assert asked.cost == sum(asked.tokens) * PRICE


SWEEP = "import django; django.setup(); from accounts.quota import release_dead_holds; release_dead_holds()"


def after_its_death(ask: Asker) -> Asked:
    """What became of the last request once the supervisor has looked."""
    python_in(ask.service.home, "-c", SWEEP)
    return ask.charged("SELECT * FROM accounts_usagerecord WHERE id = ?", ask.last_record(), None)


def knows_a_prompt(home: Path) -> bool:
    """Whether a journal says how long the prompt of an answer under way is."""
    notes = [note for path in (home / "run").glob("journals/*") for note in journal.notes_in(path)]
    return any(note.content[-1][quota.USAGE_FIELDS.index("prompt_tokens")] for note in notes)


@row("the web process is killed in mid-stream")
def test_killed_in_mid_stream(ask: Asker) -> None:
    ask.tell("alpha", token_seconds=0.1, chunks=1000)
    with web(ask.service.home, "killed") as doomed:
        asker = Asker(replace(ask.service, url=doomed.url), ask.journal)
        with asker.connection(stream=True):
            until(lambda: knows_a_prompt(ask.service.home))
            until(asker.delivered(20))
            doomed.process.kill()
            doomed.process.wait()
    asked = after_its_death(asker)
    assert asked.outcome == "failed"
    assert asked.tokens[0] == asked.really[0]
    assert asked.really[1] - 10 <= asked.tokens[1] <= asked.really[1]


@row("the web process is killed when an answer has ended and is not settled yet")
def test_killed_before_the_settlement(ask: Asker) -> None:
    ask.tell("alpha", token_seconds=0.1, chunks=10)
    database = sqlite3.connect(ask.service.home / "llm.db", timeout=30, isolation_level=None)
    with web(ask.service.home, "killed") as doomed, contextlib.closing(database) as other:
        asker = Asker(replace(ask.service, url=doomed.url), ask.journal)
        with (
            asker.service.http("ann") as http,
            http.stream("POST", "/v1/chat/completions", json=asker.body(stream=True)) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            other.execute("BEGIN IMMEDIATE")  # from here on the ledger takes nothing
            assert "data: [DONE]" in list(lines)
        doomed.process.kill()
        doomed.process.wait()
        other.execute("ROLLBACK")
    asked = after_its_death(asker)
    assert (asked.tokens, asked.outcome) == (asked.really, "completed")


@row("the engine says in mid-stream that it failed: its error's text is no answer")
def test_error_in_mid_stream(ask: Asker) -> None:
    ask.tell("alpha", error_after=4)
    asked = ask.post(**ask.body(stream=True, logprobs=True))
    assert "told to fail" not in asked.answer.text
    assert '"upstream_error"' in asked.answer.text
    assert asked.really[1] == 4
    assert_true_price(asked)


def test_the_service_itself_ends(ask: Asker) -> None:
    """That is the server's fault too: nothing is charged for what had not begun, and clients are told where they can be."""
    with web(ask.service.home, "ending") as ending, concurrent.futures.ThreadPoolExecutor() as pool:
        service = replace(ask.service, url=ending.url)
        begun, reading, whole = (Asker(service, ask.journal) for _ in range(3))
        ask.tell("alpha", token_seconds=0.3, chunks=1000)
        answers = [pool.submit(begun.post, **begun.body(stream=True))]
        until(begun.delivered(5))
        ask.tell("alpha", first_token_seconds=60, progress=100)
        answers.append(pool.submit(reading.post, **reading.body(stream=True, return_progress=True)))
        answers.append(pool.submit(whole.post, **whole.body()))
        until(lambda: reading.reading() and whole.reading())
        ending.process.send_signal(signal.SIGTERM)
        cut, told, refused = (answer.result() for answer in answers)
    assert (refused.answer.status_code, refused.answer.headers["retry-after"]) == (503, "5")
    assert all('"service_unavailable"' in asked.answer.text for asked in (cut, told, refused))
    assert [asked.outcome for asked in (cut, told, refused)] == ["failed"] * 3
    assert_free(told)
    assert_free(refused)
    [attempt] = cut.attempts
    assert cut.tokens[0] == attempt.prompt
    assert 5 <= cut.tokens[1] <= attempt.answer < 64


def test_the_table_in_the_docs_has_exactly_these_rows() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "accounts.md").read_text()
    table = text.partition("| how it ended |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table] == list(ROWS)
