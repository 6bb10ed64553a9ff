"""What a replica's life is made of: its waits, its ends, and what it shares with the others.

Ended               why a process is not there (any more)
├── Failed          something went wrong; ``reason`` is what a person will read
├── PortTaken       somebody took the port between our look and the server's bind: the next one is tried
└── Asked           the replica should stop, or be replaced by one with other settings
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import aiohttp

from models_app import process, reasons
from models_app.launchers.local import LocalLauncher
from models_app.placement import Need, Place
from models_app.preparation import Circumstances
from models_app.process import EngineProcess

LOAD_BYTES = 20_000_000  # a slow disk reads that much in a second


@dataclass(frozen=True)
class Timing:
    """Every wait of the supervisor, in seconds."""

    look: float = 1.0  # what is wanted; at once when somebody knocks
    poll: float = 0.1  # while something is about to change
    first_poll: float = 0.01  # and while it has not been for long
    watch: float = 0.25  # is the process there
    check: float = 10.0  # does it answer /health
    hung: float = 30.0
    look_inside: float = 20.0  # does it compute what it is asked
    stuck: float = 45.0  # has requests, and does nothing
    stuck_working: float = 900.0  # computes, and nothing comes of it
    start: float = 30.0
    load: float = 120.0  # and one more for each LOAD_BYTES of the file
    token: float = 120.0
    drain: float = 300.0  # for answers under way; a processor writes long ones for minutes
    room: float = 30.0  # until the memory of a replica that has ended is free
    drain_least: float = 1.2  # until the gateway, which reads states twice a second, has seen it
    healthy: float = 60.0  # a failure after that long is not a quick one
    back_off: float = 1.0
    engine: float = 3.0  # is the installed engine another one
    trial: float = 20.0  # a new one serves on one replica before the others get it
    recheck: float = 3.0  # has gone away what kept it from starting
    grace: float = process.GRACE

    def next_poll(self, passed: float) -> float:
        """What comes soon is seen soon: a twentieth of the time that has passed."""
        return min(self.poll, max(self.first_poll, passed / 20))


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
    client: aiohttp.ClientSession
    timing: Timing
    ports: dict[int, int] = field(default_factory=dict)  # by replica
    memory_promised: dict[int, int] = field(default_factory=dict)  # by replica, while it loads
    loading: dict[int, EngineProcess] = field(default_factory=dict)  # likewise
    places: dict[int, Place] = field(default_factory=dict)  # by replica, while it runs
    expected: tuple[Need, ...] = ()  # the cores that all replicas need that should run
    learned: dict[str, int] = field(default_factory=dict)  # of memory_learning

    def around(self, replica_id: int) -> Circumstances:
        promised = self.promised(but=replica_id)
        places = {other: place for other, place in self.places.items() if other != replica_id}
        return Circumstances(promised, frozenset(self.ports.values()), self.learned, self.expected, places)

    def promised(self, but: int | None = None) -> int:
        """Bytes that replicas which load will still take; what they have taken is not free any more."""
        return sum(
            max(0, size - (self.loading[replica].own_memory() if replica in self.loading else 0))
            for replica, size in list(self.memory_promised.items())
            if replica != but
        )


@dataclass
class Engine:
    """A running engine with all that is known about it."""

    process: EngineProcess
    port: int
    nonce: str
    log_start: int = 0
    file_size: int = 0
    memory_bound: int = 0  # bytes it may ask for; 0: no bound
    memory_planned: int = 0
    superfluous: int = 0  # bytes of its mapped file that it has copies of
    ready: bool = False  # taken over from an earlier supervisor in that state

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return process.engine_key(self.nonce)
