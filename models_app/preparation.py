"""Everything that can be known before a process is started: the file, its header, memory, threads, a port."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from models_app import gguf, machine, memory, model_files, process, reasons
from models_app.command_line import Chosen, Wanted
from models_app.gguf import GgufError, GgufFacts

PORTS_TRIED = 1000


class NotStartable(Exception):
    """Starting would be in vain. ``reason`` is what ``models_app.reasons`` turns into a sentence."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code, params)
        self.reason = reasons.reason(code, **params)


@dataclass(frozen=True)
class Circumstances:
    """What the other replicas of this machine take."""

    memory_promised: int = 0  # to those that load right now
    ports_in_use: frozenset[int] = frozenset()
    replicas: int = 1  # that share the cores


@dataclass(frozen=True)
class Preparation:
    chosen: Chosen
    facts: GgufFacts
    memory: int


def prepare(wanted: Wanted, around: Circumstances) -> Preparation:
    """Raises NotStartable. Takes milliseconds; call it in a thread."""
    path = find_file(wanted)
    facts = _read(path)
    available = machine.available_memory() - around.memory_promised
    context = wanted.context_length or memory.default_context(facts, wanted.slots, available)
    need = memory.need(facts, context, wanted.slots)
    if need.at_start > available:
        raise NotStartable(
            "not_enough_memory",
            needed=need.at_start,
            weights=need.weights,
            kv=need.kv_cache,
            available=max(0, available),
            context=context,
            slots=wanted.slots,
            fitting_context=memory.largest_context(facts, wanted.slots, available, context // 2),
        )
    threads = wanted.threads or max(1, machine.physical_cores() // max(1, around.replicas))
    pooling = "mean" if wanted.embeddings and not facts.pooling else ""
    return Preparation(Chosen(path, _free_port(around.ports_in_use), context, threads, pooling), facts, need.at_start)


def find_file(wanted: Wanted) -> Path:
    try:
        path = model_files.locate(wanted.file, wanted.path)
    except (model_files.UnsafePath, OSError, RuntimeError) as error:
        raise NotStartable("path_unsafe", file=wanted.file) from error
    if not path.is_file():
        raise NotStartable("file_missing", file=wanted.file, folder=wanted.path or "models/")
    return path


def _read(path: Path) -> GgufFacts:
    try:
        return gguf.read_facts(path)
    except GgufError as error:
        raise NotStartable(error.code, **{"file": path.name, **error.params}) from error
    except OSError as error:
        raise NotStartable("file_unreadable", file=path.name, error=error.strerror or str(error)) from error


def _free_port(taken: frozenset[int]) -> int:
    first: int = settings.LLAMA_CPP_PORT
    last = min(first + PORTS_TRIED, 65536) - 1
    for port in range(first, last + 1):
        if port not in taken and port != settings.SERVER_PORT and process.is_free(port):
            return port
    raise NotStartable("no_free_port", first=first, last=last)
