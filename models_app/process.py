"""llama-server processes: their key, environment, log, start, end, and how to find those of an earlier supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
from django.conf import settings

from llmplatform.lib import process_identity

logger = logging.getLogger(__name__)
# What an engine may know of our environment. Everything else, all our secrets among it, stays here.
PASSED_ON = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TEMP", "TMP", "TZ", "SYSTEMROOT", "WINDIR", "VIRTUAL_ENV"}
    | {"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "USERPROFILE"}
)
PASSED_PREFIXES = ("OMP_", "KMP_", "GOMP_", "OPENBLAS_", "MKL_", "GGML_")
# OpenMP's threads spin while they wait for each other, by default so long that beside any other busy program the thread that is
# waited for does not get a core. A short spin is as fast on a quiet machine and much faster on a busy one; none at all
# (OMP_WAIT_POLICY=PASSIVE) is slow when quiet: bench/engine_threads.py. GNU's OpenMP reads it, others ignore it. An own
# setting wins.
# GGML_NO_BACKTRACE: an engine that gives up would first start a debugger, where there is one, to describe itself. That takes up
# to minutes in which nobody is served, and buries the line that says why.
ENGINE_DEFAULTS = {"GOMP_SPINCOUNT": "1000", "GGML_NO_BACKTRACE": "1"}
# A file that whoever looks after engines touches: an embedded engine that sees it untouched for long ends itself.
CLAIM = "LLM_CLAIM"
# "folder:replica id:nonce" in the environment of each engine: says whose it is, whatever the database says.
MARKER = "LLM_REPLICA"
LOG_BYTES = 10 * 1024 * 1024
TAIL_BYTES = 16 * 1024
TAIL_LINES = 20
# llama.cpp marks the level of a line by a letter; other things in its log (an assertion, a missing library) say it in words.
CAUSE = re.compile(r"^[\d.]+ E |(?i:\berror\b|\bfailed\b|couldn't|cannot|assert|abort|Traceback|out of memory)")
OOM_SCORE = "500"  # of 1000; 0 is what every process has
MEASURERS = frozenset({"tunemodel", "buildllama"})
GRACE = 4.0  # seconds between TERM and KILL


def new_nonce() -> str:
    return secrets.token_hex(16)


def engine_key(nonce: str) -> str:
    """The API key of the replica with that nonce: known to whoever knows the service's secret, stored nowhere."""
    return hmac.new(settings.SECRET_KEY.encode(), nonce.encode(), hashlib.sha256).hexdigest()


def home_mark() -> str:
    return hashlib.sha256(str(settings.HOME_DIR).encode()).hexdigest()[:16]


def environment(replica_id: int, nonce: str, source: Mapping[str, str] = os.environ) -> dict[str, str]:
    passed = {
        name: value for name, value in source.items() if name.upper() in PASSED_ON or name.startswith(PASSED_PREFIXES)
    }
    return {
        **ENGINE_DEFAULTS,
        **passed,
        "LLAMA_API_KEY": engine_key(nonce),
        MARKER: f"{home_mark()}:{replica_id}:{nonce}",
        CLAIM: str(claim_file()),
    }


def claim_file() -> Path:
    return Path(settings.RUN_DIR) / "engines.claimed"


def claim_engines() -> None:
    """Says that somebody looks after the engines of this folder; every few seconds. A disk that is full ends none of them at
    once: see ``engine_main.UNCLAIMED_SECONDS``."""
    try:
        claim_file().parent.mkdir(parents=True, exist_ok=True)
        claim_file().touch()
    except OSError as error:
        logger.warning("%s cannot be touched: %s", claim_file(), error.strerror or error)


# -- logs --------------------------------------------------------------------------------------------------------------
def log_path(model: str, number: int) -> Path:
    return Path(settings.LOG_DIR) / "engines" / f"{quote(model, safe='')}-{number}.log"


def open_log(path: Path) -> tuple[int, int]:
    """A descriptor to append to, and the size so far. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    return descriptor, os.fstat(descriptor).st_size


def check_log_folder(path: Path) -> None:
    """Raises OSError when a log could not be written there."""
    os.close(open_log(path)[0])


def shorten_log(path: Path) -> None:
    """For engines that run for months: the engine goes on appending to the same file, so it is emptied, not renamed."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            with path.open("rb+") as stream:
                path.with_name(path.name + ".1").write_bytes(stream.read())
                stream.truncate(0)


def log_tail(path: Path, start: int = 0) -> list[str]:
    """The last lines of the log, at most those written from ``start`` on."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL_BYTES, start if start <= size else 0))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line[:500] for line in lines if line.strip()][-TAIL_LINES:]


def decisive_line(lines: list[str]) -> str:
    """The line that says most about a failure: llama.cpp logs the cause first and then who gives up because of it."""
    return next((line.strip() for line in lines if CAUSE.search(line)), lines[-1].strip() if lines else "")


# -- processes ---------------------------------------------------------------------------------------------------------
@dataclass
class EngineProcess:
    """A running engine: our own child, or one taken over from an earlier supervisor (``child`` is None then)."""

    pid: int
    started: float
    child: subprocess.Popen[bytes] | None = None
    _family: list[psutil.Process] | None = None

    def poll(self) -> int | None:
        """None while it runs, else its exit code (negative: the signal); 0 also for one that was not our child: see ``exit``."""
        if self.child is not None:
            return self.child.poll()
        return None if process_identity.is_same(self.pid, self.started) else 0

    @property
    def exit(self) -> int | None:
        """As ``poll``, once it has ended; None: the system tells that to its parent only, which we are not."""
        return self.child.poll() if self.child is not None else None

    # Of it and what it started (LLAMA_CPP_PATH may be a script); 0 when it is gone.
    def processor_seconds(self) -> float:
        return self._sum(lambda member: sum(member.cpu_times()[:2]))

    def resident(self) -> int:
        """Bytes."""
        return int(self._sum(lambda member: member.memory_info().rss))

    def own_memory(self) -> int:
        """Bytes that are free again when it ends: without the model file, which the system may drop at any time."""
        return int(self._sum(lambda member: (info := member.memory_info()).rss - getattr(info, "shared", 0)))

    def mapped(self) -> int:
        """Bytes of files in memory, the model above all, that the system counts as free since it may drop them."""
        return int(self._sum(lambda member: getattr(member.memory_info(), "shared", 0)))

    def _sum(self, of: Callable[[psutil.Process], float]) -> float:
        try:
            return sum(of(member) for member in self._members())
        except psutil.Error:  # it ended in this moment
            return 0

    def _members(self) -> list[psutil.Process]:
        """Those that run. Who they are is asked once, for that is a look at every process there is, and again when one ended."""
        if self.poll() is not None:
            return []
        if self._family is None or not all(member.is_running() for member in self._family):
            with contextlib.suppress(psutil.Error):
                own = psutil.Process(self.pid)
                self._family = [own, *own.children(recursive=True)]
        return self._family or []

    def end(self, grace: float = GRACE) -> None:
        """TERM, a grace period, KILL, reap. Blocks; returns when it is gone."""
        self._signal("terminate")
        if not self._wait(grace):
            self._signal("kill")
            self._wait(grace)

    def listens_on(self, port: int) -> bool:
        """Whether it is this process (or one it started) that serves the port, and not somebody else's."""
        try:
            own = psutil.Process(self.pid)
            family = [own, *own.children(recursive=True)]
            sockets = [entry for member in family for entry in member.net_connections("tcp")]
        except psutil.AccessDenied:  # some systems do not tell
            return True
        except psutil.NoSuchProcess:
            return False
        return any(entry.status == psutil.CONN_LISTEN and entry.laddr.port == port for entry in sockets)

    def _signal(self, name: str) -> None:
        # Looked at again right before: a pid whose process has ended may be somebody else's by now.
        if self.poll() is not None:
            return
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.name == "posix" and os.getpgid(self.pid) == self.pid:  # with what it started, if it is a script
                os.killpg(self.pid, signal.SIGTERM if name == "terminate" else signal.SIGKILL)
            else:
                getattr(psutil.Process(self.pid), name)()

    def _wait(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


@contextlib.contextmanager
def told_of_end(pid: int, call: Callable[[], object]) -> Iterator[bool]:
    """``call`` is called in the running loop once the process has ended, also when it is not our child. False: this system
    cannot tell, and somebody has to look."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or gone already
        yield False
        return

    def ended() -> None:
        loop.remove_reader(descriptor)
        call()

    try:
        loop.add_reader(descriptor, ended)
        yield True
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def prefer_to_be_killed(pid: int) -> None:
    """When the kernel must end a process for want of memory, an engine rather than the service: it is started again, and says
    why. Linux only."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(OOM_SCORE)


def spawn(argv: list[str], env: dict[str, str], log: int) -> EngineProcess:
    """Raises OSError. A session of its own: Ctrl-C in our terminal is for us, and we end it in order."""
    child = subprocess.Popen(
        argv,
        env=env,
        cwd=settings.BASE_DIR,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    prefer_to_be_killed(child.pid)
    return EngineProcess(child.pid, process_identity.started_at(child.pid) or time.time(), child)


@dataclass(frozen=True)
class Found:
    """An engine of this folder that an earlier supervisor left."""

    process: EngineProcess
    replica_id: int
    nonce: str
    parent: int = 0

    @property
    def is_measured(self) -> bool:
        """By a ``tunemodel`` or ``--build-llama`` that still runs; what a killed one left is nobody's."""
        with contextlib.suppress(psutil.Error):
            return not MEASURERS.isdisjoint(psutil.Process(self.parent).cmdline())
        return False


def find_engines() -> list[Found]:
    """All running engines that carry this folder's mark. Others' processes are only looked at.

    LLAMA_CPP_PATH may be a script that starts the real program with the same arguments and environment: the two are one engine.
    """
    all_found = [found for process in psutil.process_iter() if (found := _found(process)) is not None]
    pids = {found.process.pid for found in all_found}
    return [found for found in all_found if found.parent not in pids]


def _found(process: psutil.Process) -> Found | None:
    try:
        if "--alias" not in process.cmdline():
            return None
        mark, replica_id, nonce = process.environ().get(MARKER, "::").split(":")
        if mark != home_mark() or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Found(
            EngineProcess(process.pid, process_identity.start_time_of(process)), int(replica_id), nonce, process.ppid()
        )
    except (psutil.Error, OSError, ValueError):  # gone, or not ours to look into
        return None


# -- ports -------------------------------------------------------------------------------------------------------------
def is_free(port: int) -> bool:
    """Whether a server could listen there now. REUSEADDR as servers set it: closed connections in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
