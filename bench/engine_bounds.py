"""What one request can do to an engine: the bounds of the gateway, and the same beyond them. Linux only.

    python bench/engine_bounds.py MODEL.gguf

The built-in engine is asked directly, each thing as far as the gateway lets it and then further, and started anew when it ended.
Prints seconds, how much memory it took at most (it may have 6 GiB), and whether it lived.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
KEY = secrets.token_hex(16)
PATIENCE = 90.0
MOST_MEMORY = 6 * 2**30  # of the engine: the machine is for others too
START = {"prompt": "hello", "max_tokens": 32, "temperature": 0.5, "seed": 1, "ignore_eos": True}
SHORT = {"prompt": "hello", "max_tokens": 2, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


def words(count: int) -> dict[str, Any]:
    schema = {"enum": [f"word{number}" for number in range(count)]}
    return {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def properties(count: int) -> dict[str, Any]:
    schema = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(count)}}
    return {**CHAT, "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def breakers(count: int) -> dict[str, Any]:
    return {**START, "dry_multiplier": 1, "dry_sequence_breakers": [f"b{number}" for number in range(count)]}


def brackets(count: int) -> dict[str, Any]:
    return {**SHORT, "grammar": "root ::= " + "(" * count + '"a"' + ")" * count}


def items(count: int) -> dict[str, Any]:
    return {**SHORT, "json_schema": {"type": "array", "items": {"type": "string"}, "minItems": count}}


TRIGGERS = {"grammar": 'root ::= "a"', "grammar_lazy": True}
# What it is, as far as the gateway lets it (None: it does not), and beyond.
CASES: list[tuple[str, dict[str, Any] | None, dict[str, Any]]] = [
    ("n_probs", {**START, "n_probs": 100}, {**START, "n_probs": 49_152}),
    (
        "repeat_last_n",
        {**START, "repeat_penalty": 1.5, "repeat_last_n": 2**20},
        {**START, "repeat_penalty": 1.5, "repeat_last_n": 200_000_000},
    ),
    (
        "dry_penalty_last_n",
        {**START, "dry_multiplier": 1, "dry_penalty_last_n": 2**20},
        {**START, "dry_multiplier": 1, "dry_penalty_last_n": 200_000_000},
    ),
    (
        "samplers: dry",
        {**breakers(16), "samplers": ["dry"] * 2},
        {**breakers(16), "samplers": ["dry"] * 32},
    ),
    ("dry_sequence_breakers", breakers(16), breakers(128)),
    (
        "logit_bias",
        {**START, "logit_bias": [[number, 0.1] for number in range(10_000)]},
        {**START, "logit_bias": [[number % 40_000, 0.1] for number in range(300_000)]},
    ),
    ("brackets in a grammar", brackets(16_000), brackets(32_700)),
    (
        "repetitions in a grammar",
        {**SHORT, "grammar": "root ::= " + '"a"{0,2000} ' * 5},
        {**SHORT, "grammar": "root ::= " + '"a"{0,2000} ' * 2_700},
    ),
    ("words in a schema", words(500), words(20_000)),
    ("properties in a schema", properties(500), properties(2_000)),
    ("minItems", items(10_000), items(10**9)),
    ("grammar_triggers of no kind", None, {**SHORT, **TRIGGERS, "grammar_triggers": [{"type": 99, "value": "x"}]}),
    (
        "a pattern in grammar_triggers",
        None,
        {**SHORT, **TRIGGERS, "grammar_triggers": [{"type": 2, "value": "(" * 200_000 + ")" * 200_000}]},
    ),
]


class Engine:
    def __init__(self, model: Path) -> None:
        self._model = model
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = free_port()
        argv = [sys.executable, "-m", "models_app.engine_main", "--model", str(self._model), "--alias", "m"]
        argv += ["--port", str(port), "--ctx-size", "4096", "--parallel", "2", "--threads", "1", "--threads-batch", "1"]
        argv += ["--cache-ram", "16", "--n-predict", "512"]
        variables = {**os.environ, "LLAMA_API_KEY": KEY}
        self._process = subprocess.Popen(
            argv, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        resource.prlimit(self._process.pid, resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        self.url = f"http://127.0.0.1:{port}"
        while not self.answers():
            time.sleep(0.1)

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        return False

    @property
    def lives(self) -> bool:
        return self._process is not None and self._process.poll() is None and self.answers()

    def memory(self, name: str) -> int:
        assert self._process is not None
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(text.split(f"{name}:")[1].split()[0]) // 1024

    def forget_peak(self) -> None:
        assert self._process is not None
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def ask(engine: Engine, body: dict[str, Any]) -> str:
    if not engine.lives:
        engine.stop()
        engine.start()
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    engine.forget_peak()
    before, began = engine.memory("VmRSS"), time.monotonic()
    try:
        answer = httpx.post(engine.url + path, json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=PATIENCE)
        said = str(answer.status_code)
    except httpx.TimeoutException:
        said = "no answer"
    except httpx.HTTPError:
        return "the engine's process ends"
    seconds = time.monotonic() - began
    told = f"{said}, {seconds:5.2f} s, {max(0, engine.memory('VmHWM') - before):5d} MiB"
    if said == "no answer":
        engine.stop()
    return told


@contextlib.contextmanager
def running(model: Path) -> Iterator[Engine]:
    engine = Engine(model)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    with running(options.model.resolve()) as engine:
        ask(engine, START)
        print(f"{'an ordinary request':32} {ask(engine, START)}")
        for name, within, beyond in CASES:
            far = ask(engine, within) if within is not None else "refused"
            print(f"{name:32} {far:28} beyond: {ask(engine, beyond)}   {len(json.dumps(beyond)) // 1024} KiB")


if __name__ == "__main__":
    main()
