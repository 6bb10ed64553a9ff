"""Any sequence: requests, clients that leave, engines that misbehave, die and come back, replicas that come and go: each request
ends with a whole answer or an error of its protocol, and when all is calm nothing is left of any.

    LLM_FUZZ_MINUTES=10 LLM_FUZZ_SEED=7 python -m pytest -s gateway/tests/test_gateway_machine.py        the long form

Where time decides who comes first, a sequence need not end the same way twice: what is shown is the one that was made.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import httpx
import psutil
import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from gateway.tests.any_request import PATHS, Asked
from gateway.tests.conftest import POOR, QUIET, RICH, SETUP, Service, StandIn, python_in, until, web
from gateway.tests.test_keys_and_limits import MAKE_KEYS
from gateway.tests.test_killed_engines import KEY_AND_PROBLEMS
from tests.ports import free_port
from tests.running_service import put_prepared_files
from tests.standin.broken import BROKEN

MINUTES = float(os.environ.get("LLM_FUZZ_MINUTES") or 0.05)
SEED = int(os.environ.get("LLM_FUZZ_SEED") or 2271)
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300 + 120 * MINUTES)]

REPLICAS = {"single": ["one"], "pair": ["two", "three"], "vectors": ["vectors"]}
SLOTS = {"one": 1, "two": 2, "three": 2, "vectors": 2}
MODELS = ["single", "pair", "vectors", "coming", "broken", "nobody"]
STATES = ["ready", "ready", "draining", "loading", "failed"]
WAITS = {
    "QUEUE_LENGTH": "6",
    "QUEUE_WAIT_SECONDS": "3",
    "MODEL_WAIT_SECONDS": "1",
    "CLIENT_TIMEOUT_SECONDS": "2",
}
MOODS: list[dict] = [
    {},
    {},
    {"generate": "error"},
    {"generate": "hang"},
    {"error_status": 503},
    {"error_status": 401},
    {"first_token_seconds": 0.3},
    {"token_seconds": 0.02, "chunks": 30},
    {"progress": 4, "first_token_seconds": 0.2},
    {"progress": 4, "cut_in_prompt": 2},
    {"pings": 4, "first_token_seconds": 0.2, "error_in_prompt": 2},
    {"cut_after": 3, "token_seconds": 0.01},
    {"half_after": 3, "token_seconds": 0.01},
    {"error_after": 3, "token_seconds": 0.01},
    {"garbage_after": 3, "token_seconds": 0.01},
    {"silent_after": 3, "token_seconds": 0.01},
    {"crash_after_deltas": 3, "token_seconds": 0.01},
    {"after_finish": "cut"},
    {"after_finish": "silent"},
    {"trickles": True},
    {"drops_kept": True},
    {"refuses_to_go_on": True, "cut_after": 3},
    {"odd_template": True, "cut_after": 3},
    {"word_bytes": 200_000, "token_seconds": 0.001},
    {"counting_broken": "garbage"},
    *({"broken": how} for how in sorted(BROKEN)),
    *({"counting_broken": how} for how in ("closed", "half", "moved")),
]
FIELDS: list[dict] = [
    {},
    {"max_tokens": 3},
    {"max_tokens": 0},
    {"return_progress": True},
    {"logprobs": True},
    {"n": 2},
    {"stream_options": {"include_usage": True}},
    {"temperature": "warm"},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
]
LEAVES = [
    "never",
    "never",
    "never",
    "in the head",
    "in the body",
    "at once",
    "after bytes",
    "after bytes",
    "never reads",
]
REQUESTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([*PATHS, "chat", "messages", "native"]),
        "stream": st.booleans(),
        "words": st.sampled_from([1, 3, 40, 900, 3000]),
        "leaves": st.sampled_from(LEAVES),
        "after": st.integers(1, 3000),
        "abruptly": st.booleans(),
        "fields": st.sampled_from(FIELDS),
    }
)


@dataclass
class World:
    """What all runs of the machine share: starting it takes seconds."""

    service: Service
    process: psutil.Process
    tokens: list[str]
    files: int = 0
    first_memory: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.service.url)
        return url.host, url.port

    def memory(self) -> int:
        return self.process.memory_info().rss

    def set_state(self, name: str, state: str) -> None:
        self.service.change(
            "UPDATE models_app_replica SET state = ? WHERE port = ?", state, self.service.standins[name].port
        )

    # -- calm ------------------------------------------------------------------------------------------------------------
    def calm_down(self) -> None:
        for name, standin in self.service.standins.items():
            until(partial(self._is_quiet, standin))
            self.set_state(name, "ready")

    def _is_quiet(self, standin: StandIn) -> bool:
        """One that was told to crash may be doing so while it is told to be quiet: the next one is told again."""
        if standin.process.poll() is not None:
            standin.start()
        with contextlib.suppress(httpx.HTTPError):
            standin.tell(**QUIET)
            return True
        return False

    def nothing_is_left(self) -> None:
        until(lambda: not self.left(), 60)

    def left(self) -> dict[str, float]:
        names = ("llm_slots_busy", "llm_requests_queued", "llm_requests_under_way")
        figures = {name: self.service.metric(name) for name in names}
        figures["holds"] = len(self.service.rows("SELECT 1 FROM accounts_hold"))
        return {name: figure for name, figure in figures.items() if figure}

    def everybody_is_answered(self) -> None:
        """Nobody's place is still taken, each model serves."""
        for token in self.tokens[:-1]:
            for model, kind in (("single", "chat"), ("pair", "messages"), ("vectors", "embeddings")):
                self._is_answered(token, model, kind)

    def _is_answered(self, token: str, model: str, kind: str) -> None:
        """Once the gateway has seen that it is ready again."""
        ends: Counter[str] = Counter()
        until_then = time.monotonic() + 30
        while not ends["answered 200"]:
            asked = Asked(kind, model, token, stream=False, words=3, leaves="never", patience=20)
            asked.begin(self.address).join()
            ends[asked.end] += 1
            assert not asked.found, asked
            assert time.monotonic() < until_then, f"{asked}: {ends}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("machine")
    secrets = f"JWT_SECRET={os.urandom(32).hex()}\nSECRET_KEY={os.urandom(32).hex()}\n"
    (home / ".env").write_text(secrets + "SERVER_HOST=127.0.0.1\nALLOWED_HOSTS=127.0.0.1\nMETRICS_ALLOW=127.0.0.1\n")
    standins = {name: StandIn(free_port(), count) for name, count in SLOTS.items()}
    standins["vectors"].options = ["--embeddings"]
    models = {
        name: [{"port": standins[one].port, "slots": SLOTS[one], "state": "ready"} for one in replicas]
        for name, replicas in REPLICAS.items()
    }
    models |= {"coming": [{"state": "loading"}], "broken": [{"state": "failed"}]}
    put_prepared_files(home)
    users = {"ann": RICH, "bob": RICH, "poor": POOR}
    tokens = json.loads(python_in(home, "-c", SETUP, json.dumps({"users": users, "models": models})))
    limited = json.dumps({"limited": {"owner": "ann", "concurrent_requests": 1}, "batch": {"owner": "bob"}})
    keys = json.loads(python_in(home, "-c", MAKE_KEYS, limited))
    with contextlib.ExitStack() as stack:
        for standin in standins.values():
            stack.callback(standin.start().stop)
        running = stack.enter_context(web(home, "web", **WAITS))
        service = Service(running.url, home, tokens, standins)
        callers = [tokens["ann"], tokens["bob"], *keys.values(), tokens["poor"]]
        yield World(service, psutil.Process(running.process.pid), callers)


class Gateway(RuleBasedStateMachine):
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Asked, threading.Thread]] = []

    @rule(caller=st.integers(0, 4), model=st.sampled_from(MODELS), what=REQUESTS)
    def ask(self, caller: int, model: str, what: dict) -> None:
        asked = Asked(model=model, token=self.world.tokens[caller], **what)
        self.asked.append((asked, asked.begin(self.world.address)))

    @rule(
        model=st.sampled_from(list(REPLICAS)),
        mood=st.sampled_from(MOODS),
        asked=st.lists(REQUESTS, min_size=1, max_size=4),
    )
    def ask_for_trouble(self, model: str, mood: dict, asked: list[dict]) -> None:
        for name in REPLICAS[model]:
            self.bring_back(name)
            self.change_the_mood(name, mood)
        for number, what in enumerate(asked):
            self.ask(number % 2, model, what)

    @rule(count=st.integers(2, 8), model=st.sampled_from(["single", "pair"]), stream=st.booleans())
    def ask_together(self, count: int, model: str, stream: bool) -> None:
        for number in range(count):
            self.ask(number % 4, model, {"kind": "chat", "stream": stream, "words": 3, "leaves": "never"})

    @rule(name=st.sampled_from(list(SLOTS)), mood=st.sampled_from(MOODS))
    def change_the_mood(self, name: str, mood: dict) -> None:
        with contextlib.suppress(httpx.HTTPError):  # it may be dead
            self.world.service.standins[name].tell(**{**QUIET, **mood})

    @rule(name=st.sampled_from(list(SLOTS)))
    def kill(self, name: str) -> None:
        self.world.service.standins[name].stop()

    @rule(name=st.sampled_from(list(SLOTS)))
    def bring_back(self, name: str) -> None:
        standin = self.world.service.standins[name]
        if standin.process.poll() is not None:
            standin.start()

    @rule(name=st.sampled_from(list(SLOTS)), state=st.sampled_from(STATES))
    def change_the_state(self, name: str, state: str) -> None:
        self.world.set_state(name, state)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.4]))
    def let_it_work(self, seconds: float) -> None:
        time.sleep(seconds)  # part of the sequence, not a wait for anything

    @rule()
    def calm(self) -> None:
        world = self.world
        world.calm_down()
        for asked, thread in self.asked:
            thread.join(30)
            assert not thread.is_alive(), f"it did not end: {asked}"
            world.ends[asked.end] += 1
        found = [str(asked) for asked, _thread in self.asked if asked.found]
        assert not found, "\n".join(found)
        self.asked.clear()
        world.nothing_is_left()
        world.calm_down()  # one that was told to crash may have done so since

    def teardown(self) -> None:
        self.calm()
        self.world.everybody_is_answered()


def test_nothing_is_left_of_any_sequence(world: World) -> None:
    Gateway.world = world
    effort = settings(
        max_examples=8,
        stateful_step_count=30,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    end, runs = time.monotonic() + 60 * MINUTES, 0
    while time.monotonic() < end:
        print(f"seed {SEED + runs}")
        run_state_machine_as_test(seed(SEED + runs)(Gateway), settings=effort)
        runs += 1
        note_growth(world, runs)
    print(f"\nseeds {SEED} to {SEED + runs - 1}", *world.ends.most_common(), sep="\n")
    assert_nothing_grew(world, runs)
    assert json.loads(python_in(world.service.home, "-c", KEY_AND_PROBLEMS))[1] == []
    for log in (world.service.home / "web.log", *world.service.home.glob("logs/*.log")):
        assert "Traceback" not in log.read_text(errors="replace"), log


def note_growth(world: World, runs: int) -> None:
    """What it has after the first run is what it needs."""
    if runs == 1:
        world.files, world.first_memory = world.process.num_fds(), world.memory()
    if runs % 10 == 1:
        print(f"{runs} runs: {world.memory() / 1e6:.0f} MB, {world.process.num_fds()} files")


def assert_nothing_grew(world: World, runs: int) -> None:
    until(lambda: world.process.num_fds() <= world.files + 10)
    assert world.memory() - world.first_memory < 60e6, (
        f"{world.memory() - world.first_memory} bytes more after {runs} runs"
    )
