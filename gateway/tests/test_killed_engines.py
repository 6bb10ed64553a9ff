"""Real llama-servers killed in the middle of an answer: what the client gets is one whole answer all the same.

LLM_KILLS=100 python -m pytest -s gateway/tests/test_killed_engines.py        the long form
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from gateway.tests.conftest import RICH, ROOT, SETUP, Service, hold, python_in, until, web
from models_app.tests.counting_model import BEGIN, characters, counting_model
from tests.ports import free_port
from tests.running_service import put_prepared_files

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

KILLS = int(os.environ.get("LLM_KILLS") or 12)
LENGTH = 150  # tokens, a little more than a second
PRICE = 1000
KEY_AND_PROBLEMS = """
import django, json
django.setup()
from accounts.ledger_checks import ledger_problems
from models_app.process import engine_key
print(json.dumps([engine_key("n"), ledger_problems()]))
"""


# It opens a block of thoughts itself. What it begins with, so that the model begins to count, belongs to them.
THINKING = """{%- for message in messages -%}
[{{ message['role'] }}]
{%- if message['role'] == 'assistant' -%}<think>{{ message.get('reasoning_content') or '' }}</think>{%- endif -%}
{{ message['content'] }}{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}[assistant]<think>BEGIN{%- endif -%}""".replace("BEGIN", BEGIN)


@dataclass
class Engine:
    """A real one. ``kill`` does it, and starts the next one at once."""

    port: int
    key: str
    options: tuple[str, ...] = ()
    process: subprocess.Popen | None = None

    def start(self) -> Engine:
        figures = {
            "port": self.port,
            "ctx-size": 4096,
            "parallel": 2,
            "threads": 1,
            "threads-batch": 1,
            "cache-ram": 16,
        }
        options = [part for name, value in figures.items() for part in (f"--{name}", str(value))]
        command = [
            sys.executable,
            "-m",
            "models_app.engine_main",
            "--model",
            str(counting_model()),
            "--alias",
            "counting",
        ]
        environment = {**os.environ, "LLAMA_API_KEY": self.key}
        self.process = subprocess.Popen(
            [*command, *options, "--jinja", "--metrics", *self.options],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return self

    def kill(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def under_way(self) -> int:
        """Requests, as it says itself."""
        answer = httpx.get(f"http://127.0.0.1:{self.port}/metrics", headers={"Authorization": f"Bearer {self.key}"})
        figures = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
        return int(figures["llamacpp:requests_processing"]) + int(figures["llamacpp:requests_deferred"])

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2).status_code == 200
        return False


@dataclass
class Fleet(Service):
    engines: dict[str, Engine] = None

    def stream(self, model: str, kills: list[int]) -> tuple[str, dict, str]:
        """One answer, in which the engine that writes it (or, the second time, the other one) is killed after so many pieces:
        its text, its last event with figures, and the request id."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Count."}],
            "max_tokens": LENGTH,
            "stream": True,
        }
        body |= {"temperature": 0, "stream_options": {"include_usage": True}}
        text, ids, usage, pieces = "", set(), {}, 0
        with self.http() as http, http.stream("POST", "/v1/chat/completions", json=body, timeout=90) as answer:
            victims = [self.engines[answer.headers["x-replica"]], *self.engines.values()]
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, (event, text)
                ids.add(event["id"])
                usage = event.get("usage") or usage
                if piece := event["choices"] and _piece(event["choices"][0]["delta"]):
                    text, pieces = text + piece, pieces + 1
                    if pieces in kills:
                        victims[kills.index(pieces)].kill()
        assert line == "data: [DONE]" or not line
        assert len(ids) == 1
        return text, usage, answer.headers["x-request-id"]


def _piece(delta: dict) -> str | None:
    return delta.get("content") or delta.get("reasoning_content")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    home, ports = tmp_path_factory.mktemp("fleet"), [free_port() for _ in range(4)]
    secrets = f"JWT_SECRET={os.urandom(32).hex()}\nSECRET_KEY={os.urandom(32).hex()}\n"
    (home / ".env").write_text(secrets + "SERVER_HOST=127.0.0.1\nALLOWED_HOSTS=127.0.0.1\nMETRICS_ALLOW=127.0.0.1\n")
    replicas = [{"port": port, "slots": 2, "state": "ready"} for port in ports]
    put_prepared_files(home)
    models = {"pair": replicas[:2], "single": replicas[2:3], "thinker": replicas[3:]}
    tokens = json.loads(python_in(home, "-c", SETUP, json.dumps({"users": {"ann": RICH}, "models": models})))
    python_in(
        home,
        "-c",
        "import django; django.setup(); from models_app.models import *; ModelConfig.objects.update(max_tokens=2000)",
    )
    key = json.loads(python_in(home, "-c", KEY_AND_PROBLEMS))[0]
    names = ["pair/1", "pair/2", "single/1", "thinker/1"]
    engines = {name: Engine(port, key) for name, port in zip(names, ports, strict=True)}
    template = home / "thinking.jinja"
    template.write_text(THINKING)
    engines["thinker/1"].options = ("--chat-template-file", str(template))
    for engine in engines.values():
        engine.start()
    with contextlib.ExitStack() as stack:
        for engine in engines.values():
            stack.callback(engine.stop)
        for engine in engines.values():
            until(engine.answers)
        running = stack.enter_context(web(home, "web"))
        yield Fleet(running.url, home, tokens, {}, engines)


def assert_the_books_are_right(fleet: Fleet, request_ids: list[str]) -> None:
    until(fleet.settled)
    records = [fleet.usage(request_id) for request_id in request_ids]
    assert {(record["outcome"], record["completion_tokens"]) for record in records} == {("completed", LENGTH)}
    assert len({record["prompt_tokens"] for record in records}) == 1
    assert all(record["cost"] == (record["prompt_tokens"] + LENGTH) * PRICE for record in records)
    assert json.loads(python_in(fleet.home, "-c", KEY_AND_PROBLEMS))[1] == []


def test_whoever_writes_is_killed(fleet: Fleet) -> None:
    chance, answers, gone_on = random.Random(KILLS), [], 0
    while gone_on < KILLS:
        kills = sorted(chance.sample(range(1, LENGTH - 20), 1 if chance.random() < 0.8 else 2))
        text, usage, request_id = fleet.stream("pair", kills)
        assert text == characters(LENGTH), (kills, text)
        assert usage["completion_tokens"] == LENGTH
        answers.append(request_id)
        gone_on += fleet.usage(request_id)["resumed"]
    assert_the_books_are_right(fleet, answers)
    print(f"\n{len(answers)} whole answers, {gone_on} times gone on with")


def test_the_only_replica_is_killed(fleet: Fleet) -> None:
    text, _usage, request_id = fleet.stream("single", [60])
    assert text == characters(LENGTH)
    assert_the_books_are_right(fleet, [request_id])
    assert fleet.usage(request_id)["resumed"] >= 1


def test_a_model_is_killed_while_it_thinks(fleet: Fleet) -> None:
    text, _usage, request_id = fleet.stream("thinker", [60])
    assert text == BEGIN + characters(LENGTH)
    assert_the_books_are_right(fleet, [request_id])
    assert fleet.usage(request_id)["resumed"] >= 1


def test_several_at_once(fleet: Fleet) -> None:
    """All of a replica's answers go on elsewhere, beside those that are there."""
    found: list[tuple[str, dict, str]] = []
    kills: list[list[int]] = [[40], [], [], [90]]
    threads = [threading.Thread(target=lambda when=when: found.append(fleet.stream("pair", when))) for when in kills]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [text for text, _usage, _id in found] == [characters(LENGTH)] * len(kills)
    assert_the_books_are_right(fleet, [request_id for _text, _usage, request_id in found])


def test_a_slot_whose_client_has_left_is_free_when_the_engine_is_done(fleet: Fleet) -> None:
    """As long as another answer streams, llama-server does not look whether a client that waits for its first token is there."""
    engine, body = fleet.engines["single/1"], {"model": "single", "stream": True, "temperature": 0}
    until(lambda: fleet.metric("llm_slots_busy") == 0)
    asking = {**body, "messages": [{"role": "user", "content": "Count."}], "max_tokens": 1500}
    long = {**body, "messages": [{"role": "user", "content": "y" * 1800}]}
    with fleet.http() as http, http.stream("POST", "/v1/chat/completions", json=asking, timeout=90) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if '"content":"' in line)
        with hold(fleet, **long):
            until(lambda: fleet.metric("llm_slots_busy") == 2)
        assert fleet.metric("llm_slots_busy") == 2
        while fleet.metric("llm_slots_busy") == 2:
            assert '"finish_reason":"' not in next(lines)
        assert engine.under_way() == 1
    until(lambda: fleet.metric("llm_slots_busy") == 0)
