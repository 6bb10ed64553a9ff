"""An embedded engine that nobody looks after ends itself; a claimed one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as project

from models_app import process
from tests.ports import free_port
from tests.running_service import put_starter_model

pytestmark = pytest.mark.e2e
# As started by the supervisor, but with a short patience.
START = "import sys; from models_app import engine_main; engine_main.UNCLAIMED_SECONDS = 1.0; engine_main.main(sys.argv[1:])"


@pytest.fixture
def engine(home) -> Iterator[subprocess.Popen[bytes]]:
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
    started = subprocess.Popen(
        [sys.executable, "-c", START, "--model", str(file), "--alias", "m", *flags],
        env={**process.environment(1, "n"), "PYTHONPATH": str(project.BASE_DIR)},
        stderr=subprocess.PIPE,
    )
    yield started
    started.kill()
    started.communicate(timeout=20)


def test_it_ends_when_nobody_claims_it(engine):
    _, told = engine.communicate(timeout=60)
    assert "nobody has looked after this engine" in told.decode()
    assert engine.returncode != 0


def test_it_goes_on_while_it_is_claimed_whatever_the_clock_says(engine):
    """Times in the future and in the past are claims like any other."""
    until = time.monotonic() + 3
    moment = time.time() + 10_000
    while time.monotonic() < until:
        moment -= 100
        os.utime(process.claim_file(), (moment, moment))
        assert engine.poll() is None
        time.sleep(0.1)
