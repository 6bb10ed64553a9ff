"""Looking into a GGUF file that may come from anywhere: in a child process with bounds, once for each state of the file.

Everything that wants to know something of a file asks here: starts, the API, the console, the command.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models_app import gguf_child, model_files
from models_app.gguf import SPLIT_NAME, GgufError, GgufFacts

logger = logging.getLogger(__name__)
WALL_SECONDS = 20.0
REMEMBERED = 1024
# What may have been the machine's fault is looked at again after that many seconds, else a file is when it changes.
TRANSIENT = frozenset({"gguf_check_time", "gguf_check_ended", "gguf_check_memory"})
AGAIN = 60.0
Identity = tuple[Any, ...]


@dataclass(frozen=True)
class _Known:
    identity: Identity
    found: GgufFacts | GgufError
    at: float

    @property
    def holds(self) -> bool:
        transient = isinstance(self.found, GgufError) and self.found.code in TRANSIENT
        return not transient or time.monotonic() - self.at < AGAIN


_known: OrderedDict[Path, _Known] = OrderedDict()
_lock = threading.Lock()  # over the table only: a slow file must not keep others waiting


def facts_of(path: Path) -> GgufFacts:
    """Raises GgufError when the file is rejected, OSError when it cannot be read. Milliseconds when it was looked at before,
    about 0.1 s (at most ``WALL_SECONDS``) when not."""
    identity = _identity(path)
    with _lock:
        known = _known.get(path)
    if known is None or known.identity != identity or not known.holds:
        known = _Known(identity, _outcome(path), time.monotonic())
        _remember(path, known)
    return _facts(known.found)


def look(path: Path, sizes: Sequence[int]) -> GgufFacts:
    """The same, of what is only the beginning of a file that has so many bytes (each of its parts), and not remembered."""
    return _facts(_outcome(path, sizes))


def _facts(found: GgufFacts | GgufError) -> GgufFacts:
    if isinstance(found, GgufError):
        raise GgufError(found.code, **found.params)
    return found


def forget() -> None:
    """For tests and benches."""
    with _lock:
        _known.clear()


def _remember(path: Path, known: _Known) -> None:
    with _lock:
        _known[path] = known
        _known.move_to_end(path)
        while len(_known) > REMEMBERED:
            _known.popitem(last=False)


def _identity(path: Path) -> Identity:
    """Of the file and, when its name says that it is the first of several, of all parts."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would keep the child waiting
        raise OSError(errno.EINVAL, "no regular file")
    match = SPLIT_NAME.search(path.name)
    if match is None or match[1] != "00001":
        return (model_files.identity(path),)
    start, count = path.name[: match.start()], min(int(match[2]), 1000)
    names = [f"{start}-{number:05}-of-{match[2]}.gguf" for number in range(1, count + 1)]
    return tuple(model_files.identity(path.with_name(name)) for name in names)


def _outcome(path: Path, sizes: Sequence[int] = ()) -> GgufFacts | GgufError:
    """Raises OSError when the file cannot be read or no process can be started."""
    argv = [sys.executable, "-I", "-S", gguf_child.__file__, str(path), *map(str, sizes)]
    env = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=WALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return GgufError("gguf_check_time", seconds=round(WALL_SECONDS))
    try:
        return _said(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        logger.warning("%s: the check ended with %d: %s", path.name, done.returncode, done.stderr[-500:])
        return GgufError("gguf_check_ended", exit=done.returncode)


def _said(answer: dict[str, Any]) -> GgufFacts | GgufError:
    if "unreadable" in answer:
        raise OSError(0, answer["unreadable"])
    if "code" in answer:
        return GgufError(answer["code"], **answer["params"])
    facts = answer["facts"]
    return GgufFacts(**{**facts, "stored": tuple((name, size) for name, size in facts["stored"])})
