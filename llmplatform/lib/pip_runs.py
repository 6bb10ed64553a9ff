"""pip as a child process that fetches something for us: from the index, mirror, proxy or folder it was told to use."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

STALLED_SECONDS = 120
POLL = 0.2
QUIET = ("--disable-pip-version-check", "--no-input")
PATIENCE = ("--progress-bar", "off", "--no-deps", "--no-cache-dir", "--retries", "1", "--timeout", "15")


def run(
    arguments: Sequence[str], folder: Path, arrived: Callable[[int], None], more: Mapping[str, str] | None = None
) -> str:
    """What pip said, whether it succeeded or not. How far it is shows in how many bytes lie in ``folder``, its scratch space
    included, since each version of pip prints something else; it is ended when nothing has come for a long while."""
    argv = [sys.executable, "-m", "pip", *QUIET, *arguments]
    scratch = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with (folder / "pip.log").open("w+b") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **scratch, **(more or {})}
        )
        try:
            _follow(process, folder, arrived)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        log.seek(0)
        return log.read().decode("utf-8", "replace")


def _follow(process: subprocess.Popen[bytes], folder: Path, arrived: Callable[[int], None]) -> None:
    came, seen = time.monotonic(), -1
    while process.poll() is None:
        if (size := _size_of(folder)) != seen:
            came, seen = time.monotonic(), size
            arrived(size)
        elif time.monotonic() - came > STALLED_SECONDS:
            return
        time.sleep(POLL)


def _size_of(folder: Path) -> int:
    """Files and folders that go meanwhile are passed over: pip moves and removes what it unpacks."""
    size = 0
    for place, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(place, name), follow_symlinks=False).st_size
    return size
