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
    """Made once for each state of ``requirements-clients.txt``, by uv: a few seconds."""
    folder = CACHE / "clients"
    python, installed = folder / "bin" / "python", folder / "requirements.installed"
    CACHE.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(CACHE / "lock-clients", timeout=SECONDS):
        if not installed.exists() or installed.read_bytes() != REQUIREMENTS.read_bytes():
            shutil.rmtree(folder, ignore_errors=True)
            _uv("venv", "--python", sys.executable, str(folder))
            _uv("pip", "sync", "--python", str(python), "--require-hashes", str(REQUIREMENTS))
            shutil.copyfile(REQUIREMENTS, installed)
    return python


def _uv(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "uv", "--quiet", *arguments], check=True, timeout=SECONDS)
