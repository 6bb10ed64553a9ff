"""The ledger with several real processes, each with several threads, on a real SQLite file and on a real PostgreSQL.

PostgreSQL takes part wherever its server programs are installed: a cluster of its own on a free port, gone afterwards.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from accounts.tests.ledger_machine import EFFORT
from tests.postgres_server import PROGRAMS, running_postgres

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 3
PRICE = 1000
DATABASES = ["sqlite", "postgresql"] if PROGRAMS else ["sqlite"]
pytestmark = pytest.mark.e2e


class Workers:
    """Processes of this project on one database, each waiting for commands."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.environment = {
            **os.environ,
            "LLM_HOME": str(home),
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "llmplatform.settings",
            "TOKEN_RATE": "0.001",
            "DEFAULT_TOKENS": "1000",
        }
        self.running: list[subprocess.Popen[str]] = []
        self.start()
        self.ask("migrate")
        for _number in range(PROCESSES - 1):
            self.start()

    def start(self) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "accounts.tests.race_worker"]
        process = subprocess.Popen(
            argv, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.running.append(process)
        return process

    def ask(self, *command: Any) -> Any:
        return result_of(tell(self.running[0], *command))

    def together(self, command_of: Callable[[int], tuple[Any, ...]]) -> list[Any]:
        told = [tell(process, *command_of(number)) for number, process in enumerate(self.running)]
        return [result_of(process) for process in told]

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.communicate(timeout=30)


def tell(process: subprocess.Popen[str], *command: Any) -> subprocess.Popen[str]:
    assert process.stdin
    process.stdin.write(json.dumps(command) + "\n")
    process.stdin.flush()
    return process


def result_of(process: subprocess.Popen[str]) -> Any:
    assert process.stdout
    line = process.stdout.readline()
    assert line, "the process ended; what it said stands above"
    return json.loads(line)


@pytest.fixture(scope="module", params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield "sqlite3://./llm.db"
        return
    with running_postgres() as server:
        yield server.url


@pytest.fixture(scope="module")
def workers(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    started = Workers(tmp_path_factory.mktemp("race"), database_url)
    try:
        yield started
    finally:
        started.stop()


def test_a_balance_worth_ten_lets_exactly_ten_of_many_through(workers: Workers) -> None:
    [wallet] = workers.ask("make_wallets", 1, 10)
    got = workers.together(lambda number: ("grab", wallet, f"grab-{number}", 25))
    assert sum(got) == 10
    state = workers.ask("state")
    assert state["problems"] == []
    assert state["wallets"][str(wallet)] == [0, 10 * PRICE]


def test_a_mix_of_everything_over_shared_wallets_adds_up(workers: Workers) -> None:
    wallets = workers.ask("make_wallets", 5, 400)
    before = workers.ask("state")
    results = workers.together(lambda number: ("mix", wallets, f"mix-{number}", 7))
    settled, tokens = (sum(column) for column in zip(*results, strict=True))
    state = workers.ask("state")
    assert state["problems"] == []
    assert settled > 60
    assert state["settled"] - before["settled"] == settled
    left = sum(sum(state["wallets"][str(wallet)]) for wallet in wallets)
    assert left == (5 * 400 - tokens) * PRICE


def test_a_storm_of_everything_from_several_processes_adds_up_to_the_micro_credit(workers: Workers) -> None:
    wallets = workers.ask("make_wallets", 4, 300)
    given = workers.ask("make_storm", wallets, 12)
    before = workers.ask("state")
    tallies = workers.together(lambda number: ("storm", wallets, given, f"storm-{number}", 25))
    came_in, charged, requests = (
        sum(tally.get(name, 0) for tally in tallies) for name in ("came in", "charged", "requests")
    )
    state = workers.ask("state")
    assert state["problems"] == []
    assert state["settled"] - before["settled"] == requests > 100

    def money(of: dict[str, Any]) -> int:
        return sum(sum(of["wallets"][str(wallet)]) for wallet in wallets)

    # Holds and allowances, too, take what is over: only the ledger knows all of it.
    expired = state["expired"] - before["expired"]
    assert money(state) == money(before) + came_in - expired - charged


def test_the_proof_finds_nothing_and_stops_nobody_while_others_work(workers: Workers) -> None:
    [wallet] = workers.ask("make_wallets", 1, 1000)
    assert workers.ask("check_beside_a_writer", wallet, "beside") == []


def test_the_same_requests_from_everywhere_are_charged_once(workers: Workers) -> None:
    [wallet] = workers.ask("make_wallets", 1, 1000)
    workers.together(lambda number: ("same_request", wallet, "same", 20))
    state = workers.ask("state")
    assert state["problems"] == []
    assert state["wallets"][str(wallet)] == [1000 * PRICE - 20 * 6 * PRICE, 0]


def test_the_same_top_up_from_everywhere_comes_once(workers: Workers) -> None:
    [wallet] = workers.ask("make_wallets", 1, 1)
    workers.together(lambda number: ("same_top_up", wallet, "once", 10))
    state = workers.ask("state")
    assert state["problems"] == []
    assert state["wallets"][str(wallet)] == [11 * PRICE, 0]


# -- random interleavings ------------------------------------------------------------------------------------------------
# Those change amounts only, by statements with a condition; the others need the lock, too. What nothing but the lock sees is a
# request that is held and closed in the same moment, so in turns there is one or the other.
CONDITIONAL = (("hold", "hold and die", "top up"), ("settle", "release", "sweep", "top up"))
KINDS = ("hold", "hold and die", "settle", "release", "sweep", "top up", "top up that expires", "redeem", "expire")
# Few wallets, requests and codes, so that all processes are after the same ones all the time.
event = st.tuples(
    st.sampled_from((*KINDS, "hold", "hold", "settle", "settle")),
    st.integers(0, 1),
    st.lists(st.integers(0, 11), min_size=1, max_size=4, unique=True),
    st.integers(1, 12),
)
plans = st.lists(st.lists(event, min_size=1, max_size=8), min_size=PROCESSES, max_size=PROCESSES)


class Interleavings(RuleBasedStateMachine):
    """Each step gives every process a plan of its own; they carry them out at the same time, on the same requests and codes."""

    workers: Workers
    locked = True
    examples = itertools.count()

    @initialize()
    def begin(self) -> None:
        self.name = f"example-{next(self.examples)}"
        self.wallets = self.workers.ask("make_wallets", 2, 60)
        self.codes = self.workers.ask("make_codes", 6)
        self.before = self.workers.ask("state")
        self.came_in, self.settled, self.taken = 0, set[str](), list[str]()
        self.turns = itertools.cycle(CONDITIONAL)

    @rule(plans=plans)
    def at_once(self, plans: list[list[tuple[str, int, list[int], int]]]) -> None:
        if not self.locked:
            kinds = next(self.turns)
            plans = [[one for one in plan if one[0] in kinds] for plan in plans]
        in_full = [[self.in_full(*one) for one in plan] for plan in plans]
        for told in self.workers.together(lambda number: ("events", in_full[number], self.locked)):
            self.came_in += told["came in"]
            self.settled |= set(told["settled"])
            self.taken += told["codes"]

    def in_full(self, kind: str, wallet: int, numbers: list[int], number: int) -> tuple[str, int, list[str], int]:
        """A request is always on the wallet its number says."""
        if kind == "redeem":
            return kind, self.wallets[wallet], [self.codes[one % len(self.codes)] for one in numbers], number
        ids = [f"{self.name}-{one}" for one in numbers if one % 2 == wallet]
        return kind, self.wallets[wallet], ids, number

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "name"):
            return
        state = self.workers.ask("state")
        if state["problems"]:  # the same plan does not go wrong each time, and then hypothesis tells of that alone
            logger.error("%s", state["problems"])
        assert state["problems"] == []
        settled = state["settled"] - self.before["settled"]
        assert settled == len(self.settled) or not self.locked, "each once, if it was settled at all"
        assert len(self.taken) == len(set(self.taken)), "a code was taken twice"
        spent, expired = (state[name] - self.before[name] for name in ("spent", "expired"))
        # Of all wallets: what expires is also that of examples before this one.
        money = [sum(sum(amounts) for amounts in at["wallets"].values()) for at in (self.before, state)]
        assert money[1] == money[0] + self.came_in - expired - spent


def interleave(workers: Workers, *, locked: bool, examples: int) -> None:
    machine = type("Interleavings", (Interleavings,), {"workers": workers, "locked": locked})
    run_state_machine_as_test(machine, settings=settings(EFFORT, max_examples=examples, stateful_step_count=12))


def test_no_interleaving_of_several_processes_breaks_the_ledger(workers: Workers) -> None:
    interleave(workers, locked=True, examples=12)


@pytest.mark.parametrize("database_url", DATABASES[1:], indirect=True)  # SQLite's lock is of the whole file
def test_where_no_lock_stands_before_them_the_conditional_changes_keep_the_ledger_right(workers: Workers) -> None:
    interleave(workers, locked=False, examples=10)


@pytest.mark.timeout(600)  # some fifteen thousand queries
@pytest.mark.parametrize("database_url", DATABASES[1:], indirect=True)  # on SQLite: test_ledger_machine
def test_no_sequence_of_events_breaks_the_ledger_on_postgresql_either(workers: Workers) -> None:
    process = workers.start()
    result_of(tell(process, "machine"))


def test_the_holds_of_a_killed_process_come_back(workers: Workers) -> None:
    [wallet] = workers.ask("make_wallets", 1, 100)
    process = workers.start()
    result_of(tell(process, "hold", wallet, "killed", 7))
    assert workers.ask("state")["wallets"][str(wallet)] == [(100 - 7 * 8) * PRICE, 7 * 8 * PRICE]
    workers.ask("release_dead_holds")
    assert workers.ask("state")["wallets"][str(wallet)][1] == 7 * 8 * PRICE, "it lives: its holds stay"
    process.kill()
    process.wait(timeout=30)
    workers.running.remove(process)
    assert workers.ask("release_dead_holds") == 7
    state = workers.ask("state")
    assert state["problems"] == []
    assert state["wallets"][str(wallet)] == [100 * PRICE, 0]
