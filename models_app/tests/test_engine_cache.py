"""What the router believes of a replica's slots and host cache is what llama.cpp's own server does with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import pytest

from cluster.balancer import Request
from cluster.fleet import Fleet
from cluster.members import Taken
from cluster.prefixes import Prompt
from models_app.tests.test_engine_settings import Asked, engine

pytestmark = [pytest.mark.e2e, pytest.mark.django_db]
SYSTEM = "one two three four five six seven eight nine ten " * 30
OTHER = "red green blue white black brown " * 50
NEARLY = 0.1  # of a prompt


def prompt(*parts: str) -> Prompt:
    wholes = list(accumulate(parts))
    return Prompt(tuple(map(hash, wholes)), tuple(map(len, wholes)), (False,) * len(parts))


class Watched:
    """An engine, and the router's picture of it."""

    def __init__(self, asked: Asked, slots: int = 2) -> None:
        self.asked = asked
        self.fleet = Fleet()
        self.fleet.put(1, slots)
        self.now = 0.0

    def _take(self, *parts: str) -> tuple[Taken, float]:
        choice = self.fleet.choose(Request(300, 10), self.now, prompt(*parts), waited=None)
        assert choice is not None
        return self.fleet.take(choice, self.now, prompt(*parts)), choice.cached

    def ask(self, *parts: str) -> tuple[float, float]:
        """Which share of it is thought to be in the cache, and is."""
        taken, believed = self._take(*parts)
        timings = self.asked.post("/completion", prompt="".join(parts), n_predict=2)["timings"]
        self.now += 1
        self.fleet.give_back(taken, self.now)
        return believed, timings["cache_n"] / (timings["cache_n"] + timings["prompt_n"])

    @contextmanager
    def being_answered(self, *parts: str) -> Iterator[None]:
        taken, _believed = self._take(*parts)
        body = {"prompt": "".join(parts), "n_predict": 400, "ignore_eos": True, "stream": True}
        with self.asked.client.stream("POST", "/completion", json=body) as answer:
            lines = answer.iter_lines()  # without anybody who holds it the connection ends
            assert next(lines)
            yield
        self.now += 1
        self.fleet.give_back(taken, self.now)


def test_a_prefix_that_one_slot_holds_is_lent_once_and_then_there_are_two(home):
    with engine(home, context_length=1024, slots=2, prompt_cache=64) as asked:
        watched = Watched(asked)
        seen = {"first": watched.ask(SYSTEM, "What?"), "second": watched.ask(SYSTEM, "Where?")}
        with watched.being_answered(SYSTEM, "Why?"):
            seen["beside"] = watched.ask(SYSTEM, "Who?")
            seen["beside again"] = watched.ask(SYSTEM, "When?")
        with watched.being_answered(SYSTEM, "How?"):
            seen["beside, at last"] = watched.ask(SYSTEM, "How much?")
    assert {name: believed for name, (believed, _is) in seen.items()} == {
        "first": 0,
        "second": pytest.approx(1, abs=NEARLY),
        "beside": 0,
        "beside again": pytest.approx(1, abs=NEARLY),
        "beside, at last": pytest.approx(1, abs=NEARLY),
    }
    for name, (believed, really) in seen.items():
        assert believed == pytest.approx(really, abs=NEARLY), name


def test_what_an_idle_slot_holds_is_lent_twice_once_another_request_began(home):
    with engine(home, context_length=1024, slots=3, prompt_cache=64) as asked:
        watched = Watched(asked, slots=3)
        watched.ask(SYSTEM, "What?")
        with watched.being_answered(OTHER), watched.being_answered(SYSTEM, "Why?"):
            believed, really = watched.ask(SYSTEM, "Who?")
    assert believed == pytest.approx(1, abs=NEARLY)
    assert really == pytest.approx(1, abs=NEARLY)


def test_what_another_prompt_displaces_comes_back_from_the_host_cache(home):
    with engine(home, context_length=1024, slots=2, prompt_cache=64) as asked:
        watched = Watched(asked)
        seen = {
            name: watched.ask(*parts)
            for name, *parts in (
                ("one", SYSTEM, "What?"),
                ("another", OTHER, "Which?"),
                ("a third one", OTHER[::-1], "What?"),
                ("the first again", SYSTEM, "Where?"),
                ("the second again", OTHER, "Where?"),
            )
        }
    for name, (believed, really) in seen.items():
        assert believed == pytest.approx(really, abs=NEARLY), name
    assert seen["the first again"][0] > 0.9
