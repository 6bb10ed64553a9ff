"""The ledger with several real processes, each with several threads, on a real SQLite file and on a real PostgreSQL.

PostgreSQL takes part wherever its server programs are installed: a cluster of its own on a free port, gone afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 3
PRICE = 1000


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


POSTGRES = _postgres_programs()
DATABASES = ["sqlite", "postgresql"] if POSTGRES else ["sqlite"]
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
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        port = _free_port()
        _start_postgres(Path(folder), port)
        try:
            yield f"postgres://llm@127.0.0.1:{port}/postgres"
        finally:
            _postgres("pg_ctl", "stop", "-D", f"{folder}/data", "-m", "immediate", "-w")


@pytest.fixture(scope="module")
def workers(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    started = Workers(tmp_path_factory.mktemp("race"), database_url)
    try:
        yield started
    finally:
        started.stop()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _start_postgres(folder: Path, port: int) -> None:
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    _postgres("initdb", "-D", f"{folder}/data", "-U", "llm", "-A", "trust", "-N", "-E", "UTF8")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    _postgres("pg_ctl", "start", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w")


def _postgres(program: str, *arguments: str) -> None:
    """Its server refuses to run as root."""
    assert POSTGRES
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    subprocess.run(
        [*as_postgres, str(POSTGRES / program), *arguments], check=True, cwd="/", timeout=60, stdout=subprocess.DEVNULL
    )


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


def test_the_same_requests_from_everywhere_are_charged_once(workers: Workers) -> None:
    [wallet] = workers.ask("make_wallets", 1, 1000)
    workers.together(lambda number: ("same_request", wallet, "same", 20))
    state = workers.ask("state")
    assert state["problems"] == []
    assert state["wallets"][str(wallet)] == [1000 * PRICE - 20 * 6 * PRICE, 0]


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
