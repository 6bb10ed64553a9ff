"""A machine that misbehaves: processes killed under load, one after the other and all at once; a start that is broken off.

Nothing here asserts how long a recovery takes, since a busy machine must not fail a test; the seconds are printed (``-s``).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from chat.tests.test_websocket_e2e import socket_of
from tests.running_service import PROJECT, Service, new_service, put_starter_model, running, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MODEL = "smollm2-135m-instruct"
BACK_WITHIN = 90
STREAMS = 3
BOOKS = """
import django, json
django.setup()
from accounts.ledger_checks import ledger_problems
from accounts.models import Hold, UsageRecord, User
from accounts.quota import release_dead_holds
from chat.models import Conversation, Message
release_dead_holds()  # the supervisor does it once a minute
print(json.dumps({
    "problems": ledger_problems(), "holds": Hold.objects.count(), "users": User.objects.count(),
    "conversations": Conversation.objects.count(), "questions": Message.objects.filter(role="user").count(),
    "records": UsageRecord.objects.count(),
}))
"""


class Load:
    """A few clients that stream answers one after the other, whatever happens to the service."""

    def __init__(self, service: Service, token: str) -> None:
        self.service, self.token = service, token
        self.over = threading.Event()
        self.streaming = threading.Semaphore(0)  # one more for each stream that has begun
        self.threads = [threading.Thread(target=self._stream_on) for _ in range(STREAMS)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        for _ in self.threads:
            assert self.streaming.acquire(timeout=60), "no stream began"
        return self

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)

    def _stream_on(self) -> None:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Tell a story."}],
            "max_tokens": 60,
            "stream": True,
        }
        with self.service.client(self.token, timeout=30) as client:
            while not self.over.is_set():
                with (
                    contextlib.suppress(httpx.HTTPError),
                    client.stream("POST", "/v1/chat/completions", json=body) as answer,
                ):
                    for number, _chunk in enumerate(answer.iter_bytes()):
                        if not number:
                            self.streaming.release()
                        if self.over.is_set():
                            break
                self.over.wait(0.05)


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("killed"), DEFAULT_TOKENS="1000000") as started:
        wait_for(lambda: started.model_is_ready(MODEL), "the model", 120)
        yield started


@pytest.fixture(scope="module")
def token(service) -> str:
    """Of a user who pays: only then money is held."""
    body = {"username": "payer", "password": secrets.token_urlsafe(12), "email": ""}
    registered = httpx.post(f"{service.base_url}/api/v1/auth/register", json=body, timeout=20)
    assert registered.status_code == 201, registered.text
    return str(registered.json()["access"])


def in_django(service: Service, code: str) -> str:
    variables = {**service.environment, "DJANGO_SETTINGS_MODULE": "llmplatform.settings"}
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def books(service: Service) -> dict:
    return json.loads(in_django(service, BOOKS))


def stored_text(service: Service, message: str) -> str:
    """An answer is stored about once a second while it is written."""
    with contextlib.closing(
        sqlite3.connect(f"file:{service.home / 'llm.db'}?mode=ro", uri=True, timeout=30)
    ) as database:
        row = database.execute("SELECT text FROM chat_message WHERE id = ?", (uuid.UUID(message).hex,)).fetchone()
    return str(row[0])


def answers(service: Service, token: str) -> bool:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    with contextlib.suppress(httpx.HTTPError), service.client(token, timeout=30) as client:
        return client.post("/v1/chat/completions", json=body).status_code == 200
    return False


# -- who is killed -------------------------------------------------------------------------------------------------------
def kill_engine(service: Service) -> None:
    for engine in service.engines():
        engine.kill()


def kill_child(name: str) -> Callable[[Service], None]:
    return lambda service: os.kill(service.pids()[name], signal.SIGKILL)


def kill_serve_and_start(service: Service) -> None:
    kill_child("serve")(service)
    assert service.process is not None
    service.process.wait(10)
    wait_for(lambda: not service.processes(), "the end of what serve had started")
    service.start()


def kill_all_and_start(service: Service) -> None:
    for process in service.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert service.process is not None
    service.process.wait(10)
    service.start()


def kill_all_but_engines_and_start(service: Service) -> None:
    for pid in service.pids().values():
        os.kill(pid, signal.SIGKILL)
    assert service.process is not None
    service.process.wait(10)
    service.start()


KILLS = {
    "engine": kill_engine,
    "supervisor": kill_child("supervisor"),
    "web": kill_child("web"),
    "serve": kill_serve_and_start,
    "all": kill_all_and_start,
    "all but the engine": kill_all_but_engines_and_start,
}


@pytest.mark.parametrize("whom", KILLS)
def test_killed_under_load(service, token, whom) -> None:
    before = books(service)
    with socket_of(service, token) as socket, Load(service, token):
        asked = socket.ask("Write a very long story about the sea.", params={"max_tokens": 300})
        socket.hear_until("delta", "error")
        assert socket.events[-1]["type"] == "delta", socket.events
        wait_for(lambda: stored_text(service, asked["message"]), "some of the answer in the database")
        began = time.monotonic()
        KILLS[whom](service)
        wait_for(lambda: answers(service, token), "an answer", BACK_WITHIN)
        print(f"\nkilled {whom}: answers again after {time.monotonic() - began:.1f} s")
    with socket_of(service, token) as socket:
        socket.say(type="resume", message=asked["message"], after=0)
        assert socket.hear_until("done", "error")["type"]
        assert socket.text()
        socket.ask("And then?", conversation=asked["conversation"], params={"max_tokens": 2})
        assert socket.hear_until("done", "error")["type"] == "done"
    wait_for(lambda: len(service.engines()) == 1, "one engine only")
    # A child that looks at a model's file may run for a moment.
    wait_for(lambda: len(service.processes()) == len(service.pids()) + 1, "no other process")
    after = wait_for(lambda: found if (found := books(service))["holds"] == 0 else None, "holds given back")
    assert after["problems"] == []
    assert after["users"] == before["users"]
    assert after["conversations"] == before["conversations"] + 1
    assert after["questions"] == before["questions"] + 2
    assert after["records"] > before["records"]


# -- a start that is broken off ------------------------------------------------------------------------------------------
def begin(service: Service) -> subprocess.Popen[bytes]:
    """``manage.py serve``, not waited for."""
    return subprocess.Popen(
        [sys.executable, str(PROJECT / "manage.py"), "serve"],
        env=service.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


MOMENTS: dict[str, Callable[[Service], object]] = {
    "static files": lambda service: list((service.home / "run" / "static").glob("*")),
    "model loads": lambda service: service.engines(),
}


@pytest.mark.parametrize(("moment", "number"), [("static files", signal.SIGINT), ("model loads", signal.SIGTERM)])
def test_a_first_start_that_is_stopped_leaves_nothing_and_the_next_one_works(tmp_path, moment, number) -> None:
    service = new_service(tmp_path / "home")
    put_starter_model(service.home / "models")
    try:
        process = begin(service)
        wait_for(lambda: MOMENTS[moment](service) or process.poll() is not None, moment, 120)
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(30) == 0
        print(f"\n{number.name} while {moment}: ended after {time.monotonic() - began:.1f} s")
        assert service.processes() == []
        service.start()
        assert answers(service, service.token())
        assert service.stop() == 0
    finally:
        service.kill_what_is_left()
