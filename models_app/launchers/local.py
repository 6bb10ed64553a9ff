"""llama-servers as child processes on this machine."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from django.conf import settings

from models_app import command_line, process
from models_app.command_line import Chosen, Wanted
from models_app.process import EngineProcess

logger = logging.getLogger(__name__)
HELP_SECONDS = 10


@dataclass
class Started:
    process: EngineProcess
    log_start: int


class LocalLauncher:
    """Chooses the engine once: LLAMA_CPP_PATH when there is such a program, else the one in the xllamacpp wheel."""

    def __init__(self) -> None:
        self.program = _program()

    @cached_property
    def version(self) -> str:
        """Part of the fingerprint: another engine means that replicas are replaced."""
        if self.program is None:
            return f"embedded {_embedded_version()}"
        status = self.program.stat()
        return f"{self.program} {status.st_size} {status.st_mtime_ns}"

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
        logger.info("%s: pid %d, port %d, context %d", wanted.name, engine.pid, chosen.port, chosen.context_length)
        return Started(engine, log_start + len(headline))


def _program() -> Path | None:
    configured = settings.LLAMA_CPP_PATH
    if not configured:
        return None
    path = Path(settings.HOME_DIR, configured).expanduser()
    found = shutil.which(str(path))
    if found is None:
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
    flags = frozenset(
        re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", (done.stdout + done.stderr).decode("utf-8", "replace"))
    )
    return flags if "--port" in flags else None
