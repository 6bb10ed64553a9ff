"""A real PostgreSQL for tests: on a free port of this machine, its files in a temporary folder, stopped and started at will."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


PROGRAMS = _programs()


class PostgresServer:
    def __init__(self, folder: Path) -> None:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        self.folder = folder
        self.port = free_port()
        self.url = f"postgres://llm@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "-D", f"{folder}/data", "-U", "llm", "-A", "trust", "-N", "-E", "UTF8")

    def start(self) -> None:
        """On the same port each time."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log", "-w")

    def stop(self) -> None:
        """As in a power cut, every connection with it."""
        self._run("pg_ctl", "stop", "-D", f"{self.folder}/data", "-m", "immediate", "-w")

    def _run(self, program: str, *arguments: str) -> None:
        """Its server refuses to run as root."""
        assert PROGRAMS
        as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        command = [*as_postgres, str(PROGRAMS / program), *arguments]
        subprocess.run(command, check=True, cwd="/", timeout=60, stdout=subprocess.DEVNULL)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """An empty database at its ``url``."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
