"""What can be tuned, where the search begins, and what it tries in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from models_app.command_line import Wanted

LATENCY, THROUGHPUT, MEMORY = "latency", "throughput", "memory"
AIMS = (LATENCY, THROUGHPUT, MEMORY)
# What llama-server does when it is told nothing (tools/server/server.cpp and common/arg.cpp of llama.cpp b11434).
DEFAULT_SLOTS = 4


@dataclass(frozen=True)
class Setting:
    """Fields of ``ModelConfig`` of the same names. As they stand here: llama-server's defaults."""

    threads: int | None = None
    batch_threads: int | None = None
    ubatch: int | None = None
    slots: int = DEFAULT_SLOTS
    cache_type: str = "f16"
    flash_attention: str = "auto"
    speculative: str = "off"
    replicas: int = 1

    def applied_to(self, wanted: Wanted) -> Wanted:
        fields = asdict(self)
        fields.pop("replicas")
        return replace(wanted, **fields)

    def changes(self, other: Setting) -> dict[str, Any]:
        """What differs in this one from the other."""
        mine, theirs = asdict(self), asdict(other)
        return {name: value for name, value in mine.items() if value != theirs[name]}


@dataclass(frozen=True)
class Circumstances:
    """``cores``: physical ones this process may use; ``logical``: with those that share one."""

    aim: str
    clients: int
    cores: int
    logical: int


def defaults(aim: str, current: Setting) -> Setting:
    """How many are answered at once is the administrator's choice when one person's wait is what counts."""
    return Setting(slots=current.slots) if aim == LATENCY else Setting()


def fields_of(aim: str) -> tuple[str, ...]:
    """What a result says; other fields are left as they are."""
    everything = ("threads", "batch_threads", "ubatch", "cache_type", "flash_attention", "speculative")
    return everything if aim == LATENCY else (*everything, "slots", "replicas")


Axis = tuple[str, tuple[Any, ...]]


def axes(around: Circumstances) -> list[Axis]:
    """Field and values to try, the most promising first."""
    threads = _numbers(around.cores // 2, around.cores - 1, around.logical, below=around.logical)
    batch: Axis = ("batch_threads", _numbers(around.logical, around.cores // 2, below=around.logical))
    speculative: Axis = ("speculative", ("ngram",))
    flash: Axis = ("flash_attention", ("on", "off"))
    if around.aim == LATENCY:
        return [("threads", threads), speculative, flash, batch, ("ubatch", (256, 1024)), ("cache_type", ("q8_0",))]
    if around.aim == MEMORY:
        slots = _numbers(2, 1, below=DEFAULT_SLOTS)
        return [("cache_type", ("q8_0", "q4_0")), ("slots", slots), ("ubatch", (256, 128)), flash]
    return [
        ("slots", _numbers(around.clients, 2 * around.clients, around.clients // 2, below=256)),
        ("replicas", _numbers(2, around.cores // 4, around.cores, below=min(around.cores, around.clients))),
        ("threads", threads),
        speculative,
        flash,
        batch,
        ("ubatch", (256, 1024)),
        ("cache_type", ("q8_0",)),
    ]


def with_value(setting: Setting, field: str, value: Any, clients: int) -> Setting:
    """Replicas share what is answered at once, and the threads, among them."""
    values: Mapping[str, Any] = {field: value}
    if field == "replicas" and value > setting.replicas:
        values = {"replicas": value, "slots": max(1, -(-clients // value)), "threads": None, "batch_threads": None}
    return replace(setting, **values)


def _numbers(*values: int, below: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(value for value in values if 1 <= value <= below))
