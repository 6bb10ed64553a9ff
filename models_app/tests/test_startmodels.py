"""``startmodels`` and ``stopmodels`` as processes of their own, with the starter model under llama.cpp's real server."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from django.conf import settings as project

from models_app import starter
from models_app.tests.supervised import engines
from tests.ports import free_port
from tests.running_service import prepared_home, put_starter_model

pytestmark = pytest.mark.e2e
MANAGE = Path(project.BASE_DIR) / "manage.py"
NAME = starter.NAME


class Installation:
    """A folder as ``manage.py serve`` leaves it after its first start."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.secret = "a-secret-for-this-test-only-0123456789"
        lines = {
            "SECRET_KEY": self.secret,
            "JWT_SECRET": self.secret[::-1],
            "LLAMA_CPP_PORT": free_port(),
            "SERVER_PORT": free_port(),
        }
        lines["LLAMA_CPP_PATH"] = "./llama-cpp/build/bin/llama-server"  # the guide's, which is not there
        (home / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        self.supervisors: list[subprocess.Popen] = []

    def environment(self, **more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "VIRTUAL_ENV"}}
        return {**clean, "LLM_HOME": str(self.home), "LLM_PROCESS": "supervisor", **more}

    def manage(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(MANAGE), *arguments]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=90)

    def supervise(self, *names: str, stdin=subprocess.DEVNULL, **environment: str) -> subprocess.Popen:
        with (self.home / "supervisor.out").open("a") as out:
            command = [sys.executable, str(MANAGE), "startmodels", *names]
            started = subprocess.Popen(
                command, env=self.environment(**environment), stdin=stdin, stdout=out, stderr=out
            )
        self.supervisors.append(started)
        return started

    def rows(self) -> list[sqlite3.Row]:
        connection = sqlite3.connect(self.home / "llm.db", timeout=20)
        connection.row_factory = sqlite3.Row
        try:
            return connection.execute("select * from models_app_replica order by id").fetchall()
        finally:
            connection.close()

    def ready(self, seconds: float = 30, other_than: int = 0) -> sqlite3.Row:
        def is_ready(rows) -> bool:
            return len(rows) == 1 and rows[0]["state"] == "ready" and rows[0]["pid"] != other_than

        until(lambda: is_ready(self.rows()), seconds, lambda: (self.home / "supervisor.out").read_text())
        return self.rows()[0]

    def ask(self, row: sqlite3.Row, tokens: int = 8) -> httpx.Response:
        key = hmac.new(self.secret.encode(), row["key_nonce"].encode(), hashlib.sha256).hexdigest()
        body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": tokens}
        url = f"http://127.0.0.1:{row['port']}/v1/chat/completions"
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30)

    def log(self) -> str:
        return (self.home / "logs" / "llm-app.log").read_text()

    def clean_up(self) -> None:
        for process in self.supervisors:
            process.kill()
            process.wait()
        for engine in engines(self.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                engine.kill()


def until(condition, seconds: float = 20, tell=lambda: "") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, tell()
        time.sleep(0.05)


@pytest.fixture
def bare(tmp_path):
    shutil.copy(prepared_home() / "llm.db", tmp_path / "llm.db")
    installation = Installation(tmp_path)
    (tmp_path / "models").mkdir()
    yield installation
    installation.clean_up()


@pytest.fixture
def installation(bare):
    put_starter_model(bare.home / "models")
    return bare


def test_one_command_and_the_model_answers(installation):
    supervisor = installation.supervise()
    row = installation.ready()
    answer = installation.ask(row)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    assert psutil.Process(supervisor.pid).memory_info().rss < 80 * 1024 * 1024
    assert (
        json.loads((installation.home / "models" / "model_config.json").read_text())["models"][0]["modelName"] == NAME
    )
    log = installation.log()
    assert log.count("the built-in engine is used") == 1
    engine_log = (installation.home / "logs" / "engines" / f"{NAME}-1.log").read_text()
    assert "Say hello" not in log + engine_log, "no prompt in a log"
    assert installation.secret not in log + engine_log
    begin = time.monotonic()
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(8) == 0
    assert time.monotonic() - begin < 8
    assert not engines(installation.home)
    assert installation.rows() == []


def test_kill_9_of_the_llama_server_under_load(installation):
    installation.supervise()
    row = installation.ready()
    with ThreadPoolExecutor() as pool:
        load = [pool.submit(installation.ask, row, 200) for _number in range(4)]
        log = installation.home / "logs" / "engines" / f"{NAME}-1.log"
        until(lambda: log.read_text().count("processing task") > 1)  # the first is the supervisor's own
        os.kill(row["pid"], signal.SIGKILL)
        again = installation.ready(other_than=row["pid"])
        assert any(isinstance(request.exception(), httpx.HTTPError) for request in load)
    assert "was killed (signal 9)" in installation.log(), "its end was seen, and not only that it answers no more"
    assert installation.ask(again).status_code == 200
    assert [engine.pid for engine in engines(installation.home)] == [again["pid"]]


def test_kill_9_of_the_supervisor_leaves_the_model_and_the_next_one_takes_it_over(installation):
    first = installation.supervise()
    row = installation.ready()
    first.kill()
    first.wait()
    assert installation.ask(row).status_code == 200
    second = installation.supervise()
    until(lambda: "goes on running" in installation.log())
    assert installation.ready()["pid"] == row["pid"]
    second.terminate()
    assert second.wait(8) == 0
    assert not engines(installation.home)


def test_kill_9_while_it_starts_leaves_neither_orphan_nor_double(installation):
    """Killed at moments spread over the start: whatever the row says then, one engine runs in the end."""
    for delay in (0.0, 0.05, 0.3):
        supervisor = installation.supervise()
        until(lambda: [row for row in installation.rows() if row["state"] in ("starting", "loading", "ready")])
        # That row may be of the one before.
        until(lambda: installation.log().count("supervisor started") == len(installation.supervisors))
        time.sleep(delay)  # the moment is what is tested
        supervisor.kill()
        supervisor.wait()
    supervisor = installation.supervise()
    row = installation.ready()
    until(lambda: [engine.pid for engine in engines(installation.home)] == [row["pid"]])
    assert installation.ask(row).status_code == 200


def test_the_end_of_the_parent_is_the_end_of_all(installation):
    supervisor = installation.supervise(stdin=subprocess.PIPE, LLM_PARENT_PIPE="1")
    installation.ready()
    supervisor.stdin.close()  # what the system does when the parent dies
    assert supervisor.wait(8) == 0
    assert not engines(installation.home)


def test_further_commands_talk_to_the_running_supervisor(installation):
    installation.supervise()
    installation.ready()
    stopped = installation.manage("stopmodels", NAME)
    assert (stopped.returncode, stopped.stdout) == (0, f"{NAME}: stopped\n")
    assert not engines(installation.home)
    started = installation.manage("startmodels", NAME)
    assert (started.returncode, started.stdout) == (0, f"{NAME}: ready\n")
    unknown = installation.manage("startmodels", "nobody")
    assert unknown.returncode == 1
    assert "nobody" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    installation.ask(installation.ready())


def test_a_model_added_as_the_guide_says_and_a_broken_one_beside_it(installation):
    installation.supervise()
    installation.ready()
    path = installation.home / "models" / "model_config.json"
    document = json.loads(path.read_text())
    os.link(installation.home / "models" / starter.FILE, installation.home / "models" / "second.gguf")
    (installation.home / "models" / "broken.gguf").write_bytes(b"GGUF but not really")
    document["models"] += [
        {"modelName": "second", "modelFile": "second.gguf", "modelPath": "models/", "contextLength": 512},
        {"modelName": "broken", "modelFile": "broken.gguf", "modelPath": "models/"},
        {"modelName": "worse", "modelFile": "../../etc/passwd"},
    ]
    path.write_text(json.dumps(document, indent=2))
    synced = installation.manage("syncmodels")
    assert synced.returncode == 1
    assert "worse: modelFile" in synced.stderr
    outcome = installation.manage("startmodels", "second", "broken")
    assert outcome.returncode == 1
    assert "second: ready" in outcome.stdout
    assert "broken: failed" in outcome.stdout
    states = sorted(row["state"] for row in installation.rows())
    assert states == ["failed", "ready", "ready"]


def test_stopping_works_without_a_supervisor_too(installation):
    supervisor = installation.supervise()
    installation.ready()
    supervisor.kill()
    supervisor.wait()
    stopped = installation.manage("stopmodels")
    assert (stopped.returncode, stopped.stdout) == (0, f"{NAME}: stopped\n")
    assert not engines(installation.home)
    assert installation.rows() == []
