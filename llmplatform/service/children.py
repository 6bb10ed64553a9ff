"""A child process of ``serve``: started, watched, started again with growing pauses, stopped in time."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from llmplatform.lib import parent_watch, process_identity
from llmplatform.lib.configuration import PROJECT_DIR
from llmplatform.service.run_folder import ProcessRecord

logger = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
GOOD_RUN = 30.0  # a child that ran this long starts with the shortest pause again
GRACE = 9.0  # from asking a child to end to killing it
KILLED_WITHIN = 2.0  # a process that was killed is gone in milliseconds, as long as it takes to give back its memory


# A process group of its own, so that Ctrl-C in the terminal reaches only ``serve``.
OWN_GROUP: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if os.name == "nt"
    else {"start_new_session": True}
)


def spawn(command: Sequence[str], name: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """Start one of our commands as a child that notices the end of this process."""
    environment = {**os.environ, parent_watch.VARIABLE: "1", "LLM_PROCESS": name}
    return subprocess.Popen(_argv(command), stdin=subprocess.PIPE, stdout=stdout, env=environment, **OWN_GROUP)


def spawn_detached(command: Sequence[str], log: int) -> subprocess.Popen[bytes]:
    """Start one of our commands as a process that stays when this one and its terminal go."""
    environment = {name: value for name, value in os.environ.items() if name != parent_watch.VARIABLE}
    return subprocess.Popen(
        _argv(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, **OWN_GROUP
    )


def _argv(command: Sequence[str]) -> list[str]:
    return [sys.executable, str(PROJECT_DIR / "manage.py"), *command]


def ask_to_end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM; where there is none (Windows) the pipe's end says the same."""
    if os.name == "nt":
        close_pipe(process)
    elif process.poll() is None:
        process.send_signal(signal.SIGTERM)


def tell_to_go_on(process: subprocess.Popen[bytes] | None) -> None:
    """A line on its standard input. One that has ended meanwhile is noticed elsewhere."""
    if process is not None and process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.write(b"go\n")
            process.stdin.flush()


def close_pipe(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None and not process.stdin.closed:
        with contextlib.suppress(OSError):  # the reader went first
            process.stdin.close()


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """The last resort: the child and what it started."""
    started: list[int] = []
    with contextlib.suppress(psutil.Error):
        started = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    kill([*started, process.pid])
    # Nobody else waits for these, and ``serve`` promises that nothing is left when it has ended. Zombies are their reaper's.
    deadline = time.monotonic() + KILLED_WITHIN
    while any(process_identity.started_at(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.01)


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            psutil.Process(pid).kill()


class Child:
    """One child that should always run."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.pause = FIRST_PAUSE
        self._started = 0.0
        self._start_after = 0.0

    def start(self, *options: str) -> None:
        self.process = spawn([*self.command, *options], self.name)
        self._started = time.monotonic()
        logger.info("started %s", self.name, extra={"child": self.name, "child_pid": self.process.pid})

    def step(self) -> int:
        """Notice an end, start again when its pause is over. The pid, 0 when nothing runs."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            self._ended(self.process, now)
        if self.process is None and now >= self._start_after:
            self.start()
        return self.process.pid if self.process else 0

    def _ended(self, process: subprocess.Popen[bytes], now: float) -> None:
        close_pipe(process)
        if now - self._started >= GOOD_RUN:
            self.pause = FIRST_PAUSE
        logger.error(
            "%s ended (%s); starting it again in %.1f s",
            self.name,
            _how(process.returncode),
            self.pause,
            extra={"child": self.name, "child_pid": process.pid, "exit_code": process.returncode},
        )
        self._start_after = now + self.pause
        self.pause = min(self.pause * 2, LONGEST_PAUSE)
        self.process = None

    def record(self) -> ProcessRecord | None:
        started = process_identity.started_at(self.process.pid) if self.process else None
        return ProcessRecord(self.process.pid, started) if self.process and started else None


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def stop_all(processes: Sequence[subprocess.Popen[bytes]], grace: float = GRACE) -> None:
    """End them side by side: ask, wait, kill, reap."""
    for process in processes:
        ask_to_end(process)
    deadline = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            logger.error("process %d did not end within %.0f s; killing it", process.pid, grace)
            kill_tree(process)
            process.wait()
        close_pipe(process)


def log_file(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
