"""The Python environment of the clients that do not go together with our own one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import filelock

from tests.running_service import CACHE, PROJECT

REQUIREMENTS = PROJECT / "requirements-clients.txt"
SECONDS = 600


def clients_python() -> Path:
    """Made once for each state of ``requirements-clients.txt``, by pip as the tests' own one: what pip is told of indexes here
    holds for it too. Half a minute."""
    folder = CACHE / "clients"
    python, installed = folder / "bin" / "python", folder / "requirements.installed"
    CACHE.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(CACHE / "lock-clients", timeout=SECONDS):
        if not installed.exists() or installed.read_bytes() != REQUIREMENTS.read_bytes():
            shutil.rmtree(folder, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(folder))
            options = ("--quiet", "--no-compile", "--no-input", "--disable-pip-version-check", "--require-hashes")
            _run(str(python), "-m", "pip", "install", *options, "-r", str(REQUIREMENTS))
            shutil.copyfile(REQUIREMENTS, installed)
    return python


def _run(*arguments: str) -> None:
    subprocess.run(arguments, check=True, timeout=SECONDS)
