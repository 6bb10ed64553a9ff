"""``run/`` in the service's folder: who serves here. Uses nothing of Django and no settings."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock

from llmplatform.lib import process_identity
from llmplatform.lib.configuration import ConfigurationError, home_dir
from llmplatform.lib.early_messages import translate as _


@dataclass(frozen=True)
class ProcessRecord:
    pid: int
    started: float

    def alive(self) -> bool:
        return process_identity.is_same(self.pid, self.started)


@dataclass(frozen=True)
class Running:
    """What ``run/serve.json`` says of the parent process and its children."""

    pid: int
    started: float
    address: str
    version: str
    children: dict[str, ProcessRecord] = field(default_factory=dict)

    def alive(self) -> bool:
        return process_identity.is_same(self.pid, self.started)


class AlreadyServing(Exception):
    """Another ``serve`` holds this folder."""

    def __init__(self, running: Running | None) -> None:
        self.running = running
        if running is None:
            message = _("the service already runs in this folder")
        else:
            message = _("the service already runs here: process %(pid)d, %(address)s") % {
                "pid": running.pid,
                "address": running.address,
            }
        super().__init__(message)


def folder(home: Path | None = None) -> Path:
    return (home or home_dir()) / "run"


def take_lock(home: Path) -> filelock.BaseFileLock:
    """The lock one ``serve`` holds while it lives; the system drops it however the process ends.

    Raises AlreadyServing, or ConfigurationError when the folder cannot be written.
    """
    lock = filelock.FileLock(str(folder(home) / "serve.lock"), timeout=0, mode=0o600)
    try:
        folder(home).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise AlreadyServing(read(home)) from error
    except OSError as error:
        raise ConfigurationError(
            _("%(path)s cannot be written (%(reason)s). Give this user write access to it.")
            % {"path": folder(home), "reason": error.strerror or error}
        ) from error
    return lock


def write(home: Path, running: Running) -> None:
    replace_file(folder(home) / "serve.json", json.dumps(asdict(running), indent=1) + "\n")


def read(home: Path | None = None) -> Running | None:
    """What the last ``serve`` wrote, if that process still lives."""
    running = _stored(home)
    return running if running is not None and running.alive() else None


def left_over(home: Path) -> list[ProcessRecord]:
    """Children of a ``serve`` that was killed: they notice, and end within seconds. Only for the holder of the lock."""
    stored = _stored(home)
    return [child for child in stored.children.values() if child.alive()] if stored is not None else []


def _stored(home: Path | None) -> Running | None:
    try:
        stored: dict[str, Any] = json.loads((folder(home) / "serve.json").read_text(encoding="utf-8"))
        children = {name: ProcessRecord(**record) for name, record in stored.pop("children").items()}
        return Running(**stored, children=children)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remove(home: Path) -> None:
    (folder(home) / "serve.json").unlink(missing_ok=True)


def replace_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Write the whole file or nothing: readers never see half of it."""
    path = path.resolve()  # a symlink stays one
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)  # of a process that had this pid and died here
    # A file of our own making: nobody else's, with other permissions or leading elsewhere, is written to.
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(scratch, path)
