"""A real web server with real accounts, in front of stand-ins for llama-server. One for all tests here: it takes seconds."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from django.test import override_settings

from llmplatform.lib.knock import WEB, knock
from tests.ports import free_port
from tests.running_service import put_prepared_files

ROOT = Path(__file__).resolve().parents[2]
STANDIN = ROOT / "tests" / "standin" / "llama_server.py"
SETUP = """
import django, json, sys
django.setup()
from django.utils import timezone
from accounts import quota, services
from accounts.models import User, Wallet
from models_app.models import ModelConfig, Replica
given = json.loads(sys.argv[1])
tokens = {}
for name, amount in given["users"].items():
    user = services.register_user(name, f"password-of-{name}-1", f"{name}@example.org", "")
    quota.adjust(user.wallet, amount - user.wallet.available)
    tokens[name] = services.token_pair(user)[0]
for name, replicas in given["models"].items():
    model = ModelConfig.objects.create(name=name, file="none.gguf", max_tokens=64, embeddings=name == "vectors")
    for number, replica in enumerate(replicas, 1):
        Replica.objects.create(model=model, number=number, node="test", since=timezone.now(), key_nonce="n",
                               context_length=2048, **replica)
ModelConfig.objects.create(name="hidden", file="none.gguf", active=False)
print(json.dumps(tokens))
"""
QUEUE_LENGTH = 16
CONTEXT = 2048  # of each slot, as in SETUP
RICH = 10**12
PATIENCE = 60  # seconds; some tests ask for much at once
POOR = 90_000  # at the default price of 1000: 90 tokens


# Nothing here speaks TLS: verify=False spares each client the reading of the system's certificates, 20 ms and more.


def until(condition: Callable[[], object], seconds: float = 90) -> object:
    """The first true answer of ``condition``. The time only bounds how long a test that fails takes."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{condition} stayed {found!r}"
        time.sleep(0.02)
    return found


@dataclass
class StandIn:
    """One stand-in for llama-server. ``tell`` changes how it behaves; ``seen`` lists what it was asked."""

    port: int
    slots: int
    options: list[str] = field(default_factory=list)
    process: subprocess.Popen | None = None

    def start(self) -> StandIn:
        command = [sys.executable, str(STANDIN), "--port", str(self.port), "-np", str(self.slots), *self.options]
        context = ["-c", str(CONTEXT * self.slots)]
        self.process = subprocess.Popen([*command, *context], stderr=subprocess.DEVNULL)
        until(self.answers)
        return self

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health", verify=False).status_code == 200
        return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def tell(self, **switches: object) -> None:
        httpx.post(
            f"http://127.0.0.1:{self.port}/standin", json=switches, timeout=PATIENCE, verify=False
        ).raise_for_status()

    def seen(self) -> list[dict]:
        return httpx.get(f"http://127.0.0.1:{self.port}/standin", timeout=PATIENCE, verify=False).json()["seen"]


def rows(home: Path, sql: str, *parameters: object) -> list[sqlite3.Row]:
    with contextlib.closing(sqlite3.connect(home / "llm.db", timeout=PATIENCE)) as database:
        database.row_factory = sqlite3.Row
        return database.execute(sql, parameters).fetchall()


@dataclass
class Service:
    url: str
    home: Path
    tokens: dict[str, str]
    standins: dict[str, StandIn]

    def rows(self, sql: str, *parameters: object) -> list[sqlite3.Row]:
        return rows(self.home, sql, *parameters)

    def change(self, sql: str, *parameters: object) -> None:
        with contextlib.closing(sqlite3.connect(self.home / "llm.db", timeout=PATIENCE)) as database, database:
            database.execute(sql, parameters)

    def knock(self) -> None:
        """So that its web servers see at once what was changed."""
        with override_settings(RUN_DIR=self.home / "run"):
            knock(WEB)

    def usage(self, request_id: str) -> sqlite3.Row:
        """The usage record of a request, once it is written."""
        found = until(lambda: self.rows("SELECT * FROM accounts_usagerecord WHERE request_id = ?", request_id))
        return found[0]

    def wallet(self, user: str) -> sqlite3.Row:
        sql = "SELECT w.* FROM accounts_wallet w JOIN accounts_user u ON u.id = w.user_id WHERE u.username = ?"
        return self.rows(sql, user)[0]

    def settled(self) -> bool:
        """No hold is open."""
        return not self.rows("SELECT 1 FROM accounts_hold")

    def http(self, user: str | None = "ann") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} if user else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, verify=False)

    def metric(self, name: str) -> float:
        """The sum over a metric's labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=PATIENCE, verify=False).text
        lines = [line for line in text.splitlines() if line.startswith((name + "{", name + " "))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def connect(service: Service) -> socket.socket:
    url = httpx.URL(service.url)
    return socket.create_connection((url.host, url.port), timeout=PATIENCE)


def hold(service: Service, model: str = "narrow", token: str = "", **fields: object) -> socket.socket:
    """A streamed question, which waits for a slot or has one until the connection is closed.

    It has one for as long as the engine takes: for that, tell it ``first_token_seconds`` of a minute before, and none after.
    """
    body = {"model": model, "messages": [{"role": "user", "content": "Is it so?"}], "stream": True, **fields}
    data = json.dumps(body).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {httpx.URL(service.url).host}",
        f"Authorization: Bearer {token or service.tokens['ann']}",
        f"Content-Length: {len(data)}",
    ]
    wire = connect(service)
    wire.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    return wire


def python_in(home: Path, *arguments: str) -> str:
    env = {
        **os.environ,
        "LLM_HOME": str(home),
        "DJANGO_SETTINGS_MODULE": "llmplatform.settings",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home, port = tmp_path_factory.mktemp("gateway"), free_port()
    slots = {"alpha": 4, "narrow": 1, "first": 2, "second": 2, "vectors": 2}
    standins = {name: StandIn(free_port(), count) for name, count in slots.items()}
    standins["vectors"].options = ["--embeddings"]
    secrets = f"JWT_SECRET={os.urandom(32).hex()}\nSECRET_KEY={os.urandom(32).hex()}\n"
    limits = f"QUEUE_LENGTH={QUEUE_LENGTH}\nALLOWED_HOSTS=127.0.0.1\nMETRICS_ALLOW=127.0.0.1\n"
    (home / ".env").write_text(secrets + limits + f"SERVER_PORT={port}\nSERVER_HOST=127.0.0.1\n")

    def replica(name: str) -> dict:
        return {"port": standins[name].port, "slots": slots[name], "state": "ready"}

    models = {name: [replica(name)] for name in ("alpha", "narrow", "vectors")}
    models["twins"] = [replica("first"), replica("second")]
    models["three"] = [replica("first"), replica("second"), replica("alpha")]
    models["coming"] = [{"state": "loading"}]
    models["broken"] = [{"state": "failed"}]
    users = {
        "ann": RICH,
        "bob": RICH,
        "poor": POOR,
        "scarce": 120_000,
        "scanty": 120_000,
        "pinched": 120_000,
        "modest": 160_000,
    }
    put_prepared_files(home)
    tokens = json.loads(python_in(home, "-c", SETUP, json.dumps({"users": users, "models": models})))
    env = {**os.environ, "LLM_HOME": str(home)}
    with contextlib.ExitStack() as stack:
        for standin in standins.values():
            stack.callback(standin.start().stop)
        log = stack.enter_context((home / "web.log").open("wb"))
        web = subprocess.Popen([sys.executable, "manage.py", "web"], cwd=ROOT, env=env, stdout=log, stderr=log)
        stack.callback(web.wait)
        stack.callback(web.send_signal, signal.SIGKILL)
        service = Service(f"http://127.0.0.1:{port}", home, tokens, standins)
        until(lambda: _runs(web) and _reachable(service), 120)
        yield service


def _reachable(service: Service) -> bool:
    with contextlib.suppress(httpx.HTTPError), service.http() as client:
        return client.get("/v1/models").status_code == 200
    return False


@dataclass
class Web:
    url: str
    process: subprocess.Popen


@contextlib.contextmanager
def web(home: Path, name: str, **environment: str) -> Iterator[Web]:
    """One more web server on the same database."""
    port = free_port()
    env = {**os.environ, "LLM_HOME": str(home), "SERVER_PORT": str(port), **environment}
    with (home / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "manage.py", "web"], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: _runs(process) and _is_up(url))
        yield Web(url, process)
        if process.poll() is None:
            until(lambda: not rows(home, "SELECT 1 FROM accounts_hold"))  # what it has not settled yet would stay held
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _runs(process: subprocess.Popen) -> bool:
    assert process.poll() is None, f"{process.args} ended with {process.returncode}; its log is in the home"
    return True


def _is_up(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/healthz", verify=False).status_code == 200
    return False


QUIET = {
    "generate": "ok",
    "error_status": None,
    "error_times": None,
    "cut_after": None,
    "half_after": None,
    "error_after": None,
    "silent_after": None,
    "garbage_after": None,
    "broken": None,
    "counting_broken": None,
    "trickles": None,
    "word_bytes": None,
    "progress": None,
    "pings": None,
    "cut_in_prompt": None,
    "error_in_prompt": None,
    "after_finish": None,
    "first_token_seconds": 0,
    "token_seconds": 0,
    "chunks": None,
    "crash_after_deltas": None,
    "cached": None,
    "journal": None,
    "answer": None,
    "drops_kept": None,
    "refuses_to_go_on": None,
    "odd_template": None,
}


@pytest.fixture
def service(running: Service) -> Service:
    """The running service, its stand-ins well-behaved, and afterwards with nothing left open."""
    for standin in running.standins.values():
        if standin.process.poll() is not None:
            standin.start()
        standin.tell(**QUIET, forget=True)
    yield running
    until(running.settled)
    until(lambda: running.metric("llm_requests_under_way") == 0)
    until(lambda: running.metric("llm_slots_busy") == 0)  # a slot whose client left is free when its engine says so
    assert running.metric("llm_requests_queued") == 0
