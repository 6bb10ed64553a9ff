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


class Service:
    """Processes of this project on one database."""

    def __init__(self, home: Path, database_url: str) -> None:
        self.environment = {
            **os.environ,
            "LLM_HOME": str(home),
            "DATABASE_URL": database_url,
            "DJANGO_SETTINGS_MODULE": "llmplatform.settings",
            "TOKEN_RATE": "0.001",
            "DEFAULT_TOKENS": "1000",
        }
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=self.environment, check=True, timeout=120
        )

    def start(self, command: str, *arguments: Any) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "accounts.tests.race_worker", command, *map(json.dumps, arguments)]
        return subprocess.Popen(
            argv, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, command: str, *arguments: Any) -> Any:
        return result_of(self.start(command, *arguments))

    def together(self, arguments_of: Callable[[int], tuple[Any, ...]]) -> list[Any]:
        running = [self.start(*arguments_of(number)) for number in range(PROCESSES)]
        return [result_of(process) for process in running]


def result_of(process: subprocess.Popen[str]) -> Any:
    output, _errors = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(output)


@pytest.fixture(scope="module", params=DATABASES)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("race")
    if request.param == "sqlite":
        yield Service(home, "sqlite3://./llm.db")
        return
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        port = _free_port()
        _start_postgres(Path(folder), port)
        try:
            yield Service(home, f"postgres://llm@127.0.0.1:{port}/postgres")
        finally:
            _postgres("pg_ctl", "stop", "-D", f"{folder}/data", "-m", "immediate", "-w")


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


def test_a_balance_worth_ten_lets_exactly_ten_of_many_through(service: Service) -> None:
    [wallet] = service.ask("make_wallets", 1, 10)
    got = service.together(lambda number: ("grab", wallet, f"grab-{number}", 25))
    assert sum(got) == 10
    state = service.ask("state")
    assert state["problems"] == []
    assert state["wallets"][str(wallet)] == [0, 10 * PRICE]


def test_a_mix_of_everything_over_shared_wallets_adds_up(service: Service) -> None:
    wallets = service.ask("make_wallets", 5, 400)
    before = service.ask("state")
    results = service.together(lambda number: ("mix", wallets, f"mix-{number}", 7))
    settled, tokens = (sum(column) for column in zip(*results, strict=True))
    state = service.ask("state")
    assert state["problems"] == []
    assert settled > 60
    assert state["settled"] - before["settled"] == settled
    left = sum(sum(state["wallets"][str(wallet)]) for wallet in wallets)
    assert left == (5 * 400 - tokens) * PRICE


def test_the_same_requests_from_everywhere_are_charged_once(service: Service) -> None:
    [wallet] = service.ask("make_wallets", 1, 1000)
    service.together(lambda number: ("same_request", wallet, "same", 20))
    state = service.ask("state")
    assert state["problems"] == []
    assert state["wallets"][str(wallet)] == [1000 * PRICE - 20 * 6 * PRICE, 0]


def test_the_holds_of_a_killed_process_come_back(service: Service) -> None:
    [wallet] = service.ask("make_wallets", 1, 100)
    process = service.start("hold_and_wait", wallet, "killed")
    assert process.stdout
    assert json.loads(process.stdout.readline()) == "holding"
    assert service.ask("state")["wallets"][str(wallet)] == [(100 - 7 * 8) * PRICE, 7 * 8 * PRICE]
    process.kill()
    process.communicate(timeout=30)
    assert service.ask("release_dead_holds") >= 7
    state = service.ask("state")
    assert state["problems"] == []
    assert state["wallets"][str(wallet)] == [100 * PRICE, 0]
