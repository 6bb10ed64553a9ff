"""llama-servers as child processes on this machine."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from llmplatform.lib.configuration import ConfigurationError, read_env_file
from models_app import command_line, engine_limits, process
from models_app.command_line import Chosen, Wanted
from models_app.process import EngineProcess

logger = logging.getLogger(__name__)
HELP_SECONDS = 10
EMBEDDED = "embedded"


@dataclass
class Started:
    process: EngineProcess
    log_start: int


class LocalLauncher:
    """The engine is LLAMA_CPP_PATH when there is such a program, else the one in the xllamacpp wheel. ``look`` sees when it is
    another one now; until then it is what it was."""

    def __init__(self) -> None:
        self._configured: str = settings.LLAMA_CPP_PATH
        self._setting = _Setting()
        self.program = _program(self._configured)
        self._seen = self.version

    @classmethod
    def of(cls, program: Path | None) -> LocalLauncher:
        """With that llama-server, whatever LLAMA_CPP_PATH says; None: the built-in engine."""
        launcher = cls.__new__(cls)
        launcher.program = program
        return launcher

    @cached_property
    def version(self) -> str:
        """Part of the fingerprint: another engine means that replicas are replaced. Raises OSError."""
        return _version(self.program)

    def look(self) -> bool:
        """Whether it has changed, the setting in ``.env`` included. Blocks for milliseconds.

        A change counts when two looks have seen the same: a program is not there all at once. One that is gone is no change: it
        may be about to be replaced, and what runs goes on.
        """
        if (changed := self._setting.changed()) is not None:
            self._configured = changed
        program = _program(self._configured, quietly=True)
        if program is None and self._configured:
            return False
        try:
            now = _version(program)
        except OSError:
            return False
        before, self._seen = self._seen, now
        if now == self.version or now != before:
            return False
        self.program = program
        self.__dict__["version"] = now
        self.__dict__.pop("known_flags", None)
        return True

    @cached_property
    def known_flags(self) -> frozenset[str] | None:
        return None if self.program is None else _flags_of(self.program)

    def argv(self, wanted: Wanted, chosen: Chosen) -> list[str]:
        start = [str(self.program)] if self.program else [sys.executable, "-m", "models_app.engine_main"]
        return [*start, *command_line.build(wanted, chosen, self.known_flags)]

    def start(self, wanted: Wanted, chosen: Chosen, replica_id: int, nonce: str, log: Path) -> Started:
        """Raises OSError. Blocks for milliseconds: call it in a thread."""
        argv = self.argv(wanted, chosen)
        descriptor, log_start = process.open_log(log)
        headline = f"--- {' '.join(argv)}\n".encode()
        with open(descriptor, "ab", buffering=0) as stream:
            stream.write(headline)
            engine = process.spawn(argv, process.environment(replica_id, nonce), descriptor)
            engine_limits.apply(engine.pid, chosen.cpus, chosen.memory_bound)
        logger.info("%s: pid %d, port %d, context %d", wanted.name, engine.pid, chosen.port, chosen.context_length)
        return Started(engine, log_start + len(headline))


class _Setting:
    """LLAMA_CPP_PATH as it stands in ``.env``: the one setting whose change needs no restart, for that would end all models."""

    def __init__(self) -> None:
        self._file = Path(settings.HOME_DIR) / ".env"
        self._state = self._look()
        self._value = self._read()

    def changed(self) -> str | None:
        """The new value when there is one since the last call. The environment comes before the file."""
        state = self._look()
        if state == self._state or "LLAMA_CPP_PATH" in os.environ:
            return None
        self._state = state
        before, self._value = self._value, self._read()
        return self._value if self._value != before else None

    def _look(self) -> tuple[int, int]:
        try:
            status = self._file.stat()
        except OSError:
            return (0, 0)
        return (status.st_size, status.st_mtime_ns)

    def _read(self) -> str | None:
        try:
            return read_env_file(self._file).values.get("LLAMA_CPP_PATH", "")
        except ConfigurationError:  # somebody is writing it
            return None


def _version(program: Path | None) -> str:
    """Raises OSError."""
    if program is None:
        return f"{EMBEDDED} {_embedded_version()}"
    status = program.stat()
    return f"{program} {status.st_size} {status.st_mtime_ns}"


def label(version: str) -> str:
    """A build in short, for people: "built-in 0.2.6", "llama-server of 2026-11-29 16:40"."""
    if version.startswith(f"{EMBEDDED} "):
        return _("built-in %(version)s") % {"version": version.removeprefix(f"{EMBEDDED} ")}
    try:
        program, _size, changed = version.rsplit(" ", 2)
        when = datetime.fromtimestamp(int(changed) / 1e9).astimezone()
    except (ValueError, OverflowError, OSError):  # none yet, or written by another version
        return ""
    return _("%(program)s of %(when)s") % {"program": Path(program).name, "when": when.strftime("%Y-%m-%d %H:%M:%S")}


def _program(configured: str, quietly: bool = False) -> Path | None:
    if not configured:
        return None
    path = Path(settings.HOME_DIR, configured).expanduser()
    found = shutil.which(str(path))
    if found is None:
        if quietly:
            return None
        logger.warning("LLAMA_CPP_PATH=%s: no such program; the built-in engine is used", configured)
        return None
    return Path(found)


def _embedded_version() -> str:
    try:
        return metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        return "missing"


def _flags_of(program: Path) -> frozenset[str] | None:
    """The flags ``--help`` lists; None (all of ours are given) when it lists none."""
    try:
        done = subprocess.run(
            [str(program), "--help"],
            capture_output=True,
            timeout=HELP_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**process.environment(0, ""), "LLAMA_API_KEY": ""},
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("%s --help: %s", program, error)
        return None
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    flags = frozenset(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text))
    if command_line.DRAFT_TYPE in text:
        flags |= {command_line.DRAFT_TYPE}
    return flags if "--port" in flags else None
