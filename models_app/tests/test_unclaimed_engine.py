"""An embedded engine that nobody looks after ends itself; a claimed one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.conf import settings as project

from models_app import engine_main, process
from tests.ports import free_port
from tests.running_service import put_starter_model

# As started by the supervisor, but with a short patience.
START = "import sys; from models_app import engine_main; engine_main.UNCLAIMED_SECONDS = 1.0; engine_main.main(sys.argv[1:])"


@pytest.mark.e2e
def test_it_ends_when_nobody_claims_it(home):
    put_starter_model(home / "models")
    file = next(Path(home / "models").glob("*.gguf"))
    numbers = {
        "--port": free_port(),
        "--ctx-size": 256,
        "--parallel": 1,
        "--threads": 1,
        "--threads-batch": 1,
        "--cache-ram": 0,
    }
    flags = [part for flag, number in numbers.items() for part in (flag, str(number))]
    process.claim_engines()
    ended = subprocess.run(
        [sys.executable, "-c", START, "--model", str(file), "--alias", "m", *flags],
        env={**process.environment(1, "n"), "PYTHONPATH": str(project.BASE_DIR)},
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert "nobody has looked after this engine" in ended.stderr.decode()
    assert ended.returncode != 0


def test_it_goes_on_while_it_is_claimed_whatever_the_clock_says(home, monkeypatch):
    """Times in the future and in the past are claims like any other."""
    process.claim_engines()
    now, ends, moment = 0.0, [], time.time() + 10_000

    def sleep(seconds: float) -> None:
        nonlocal now, moment
        now += seconds
        if now < 1000:
            moment -= 100
            os.utime(process.claim_file(), (moment, moment))

    monkeypatch.setattr(engine_main, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(engine_main.os, "kill", lambda pid, number: ends.append((pid, number)))
    engine_main.end_when_unclaimed(process.claim_file())
    assert ends == [(os.getpid(), signal.SIGTERM)]
    assert now == pytest.approx(1000 + engine_main.UNCLAIMED_SECONDS, abs=engine_main.UNCLAIMED_SECONDS / 10)
