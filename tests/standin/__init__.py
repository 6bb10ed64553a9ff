"""Tests' helper: run the stand-in llama-server as a real child process.

with standin.start(token_seconds=0.05, cut_after=3) as server:
    httpx.post(server.base_url + "/v1/chat/completions", headers=server.headers, json={...})
    assert server.requests_seen()[0]["state"] == "closed"
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("llama_server.py")


class StandIn:
    """A running stand-in. ``requests_seen()`` tells of generation requests: path, body, headers, deltas sent, and state
    (waiting, running, done, closed: the client went or it was cut)."""

    def __init__(self, process: subprocess.Popen[str], port: int, key: str, model: str) -> None:
        self.process, self.port, self.key, self.model = process, port, key, model
        self.base_url = f"http://127.0.0.1:{port}"
        self.headers = {"Authorization": f"Bearer {key}"}

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)
        if self.process.stdout:
            self.process.stdout.close()

    def switch(self, **switches: Any) -> None:
        """Changes switches while it runs (None turns one off)."""
        self._control(json.dumps(switches).encode())

    def requests_seen(self) -> list[dict[str, Any]]:
        return list(self._control(None)["seen"])

    def wait_for(self, condition: Callable[[list[dict[str, Any]]], bool], seconds: float = 10) -> list[dict[str, Any]]:
        """Polls ``requests_seen()`` until the condition holds; fails the test otherwise."""
        end = time.monotonic() + seconds
        while True:
            seen = self.requests_seen()
            if condition(seen):
                return seen
            assert time.monotonic() < end, f"not within {seconds} s: {seen}"
            time.sleep(0.02)

    def _control(self, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(self.base_url + "/standin", data=body)
        with contextlib.closing(urllib.request.urlopen(request, timeout=10)) as answer:
            return dict(json.load(answer))


def start(
    *,
    port: int = 0,
    key: str | None = None,
    model: str = "stand-in",
    slots: int = 4,
    context: int = 8192,
    embeddings: bool = False,
    **switches: Any,
) -> StandIn:
    """Starts one on a free port and waits until it listens. ``context`` is per slot. Switches: see llama_server.py."""
    key = key if key is not None else secrets.token_hex(16)
    argv = [sys.executable, str(PROGRAM), "--port", str(port), "--alias", model, "--parallel", str(slots)]
    argv += ["--ctx-size", str(context * slots), "--switches", json.dumps(switches)]
    argv += ["--embeddings"] if embeddings else []
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "LLAMA_API_KEY": key})
    assert process.stdout
    line = process.stdout.readline()
    if "listening on" not in line:
        raise AssertionError(f"the stand-in did not start: {process.wait(10)}")
    return StandIn(process, int(line.rsplit(":", 1)[1]), key, model)


def write_executable(path: Path, **switches: Any) -> Path:
    """Makes ``path`` a script to set LLAMA_CPP_PATH to. Its switches lie in ``<path>.json`` and may be changed there at any
    time with ``set_switches``: the supervisor passes no environment on."""
    set_switches(path, **switches)
    program = f"exec {shlex.quote(sys.executable)} {shlex.quote(str(PROGRAM))}"
    path.write_text(f'#!/bin/sh\n{program} --switches-file {shlex.quote(str(path) + ".json")} "$@"\n')
    path.chmod(0o755)
    return path


def set_switches(path: Path, **switches: Any) -> None:
    temporary = path.with_name(path.name + ".json.new")
    temporary.write_text(json.dumps(switches))
    temporary.replace(path.with_name(path.name + ".json"))
