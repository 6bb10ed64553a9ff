"""What a replica's life is made of: its waits, its ends, and what it shares with the others.

Ended               why a process is not there (any more)
├── Failed          something went wrong; ``reason`` is what a person will read
├── PortTaken       somebody took the port between our look and the server's bind: the next one is tried
└── Asked           the replica should stop, or be replaced by one with other settings
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from models_app import process, reasons
from models_app.launchers.local import LocalLauncher
from models_app.preparation import Circumstances
from models_app.process import EngineProcess

LOAD_BYTES = 20_000_000  # a slow disk reads that much in a second


@dataclass(frozen=True)
class Timing:
    """Every wait of the supervisor, in seconds."""

    look: float = 0.5  # what is wanted
    poll: float = 0.1  # while something is about to change
    watch: float = 0.25  # is the process there
    check: float = 5.0  # does it answer /health
    hung: float = 30.0
    start: float = 30.0
    load: float = 120.0  # and one more for each LOAD_BYTES of the file
    token: float = 120.0
    drain: float = 30.0
    drain_least: float = 1.2  # until the gateway, which reads states twice a second, has seen it
    healthy: float = 60.0  # a failure after that long is not a quick one
    back_off: float = 1.0
    recheck: float = 3.0  # has gone away what kept it from starting
    grace: float = process.GRACE


class Ended(Exception):
    pass


class Failed(Ended):
    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code, params)
        self.reason = reasons.reason(code, **params)


class PortTaken(Ended):
    pass


class Asked(Ended):
    pass


@dataclass
class Shared:
    """What all replicas of a supervisor have in common."""

    launcher: LocalLauncher
    client: httpx.AsyncClient
    timing: Timing
    ports: dict[int, int] = field(default_factory=dict)  # by replica
    memory_promised: dict[int, int] = field(default_factory=dict)  # by replica, while it loads
    replicas: int = 1

    def around(self, replica_id: int) -> Circumstances:
        promised = sum(size for other, size in self.memory_promised.items() if other != replica_id)
        return Circumstances(promised, frozenset(self.ports.values()), self.replicas)


@dataclass
class Engine:
    """A running engine with all that is known about it."""

    process: EngineProcess
    port: int
    nonce: str
    log_start: int = 0
    file_size: int = 0
    ready: bool = False  # taken over from an earlier supervisor in that state

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return process.engine_key(self.nonce)
