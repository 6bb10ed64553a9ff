"""Everything that can be known before a process is started: the file, its header, memory, threads, a port."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from models_app import (
    engine_limits,
    inspection,
    machine,
    memory,
    memory_plan,
    model_files,
    placement,
    process,
    reasons,
    topology,
)
from models_app.command_line import Chosen, Wanted
from models_app.gguf import ADAPTER, CHAT, MODELS, PROJECTOR, GgufError, GgufFacts
from models_app.memory_plan import Files, Plan
from models_app.placement import Need, Place

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
    learned: Mapping[str, int] = field(default_factory=dict)  # bytes by ``memory_plan.key_of``
    expected: tuple[Need, ...] = ()  # of all replicas that should run
    places: Mapping[int, Place] = field(default_factory=dict)  # of those that do


@dataclass(frozen=True)
class Preparation:
    chosen: Chosen
    facts: GgufFacts
    plan: Plan
    place: Place

    @property
    def memory(self) -> int:
        """Bytes that must be free for it."""
        return self.plan.need.at_start

    @property
    def memory_fields(self) -> dict[str, Any]:
        """Of its ``Replica``."""
        return {"memory_planned": self.plan.need.resident, "memory_measured": None, "memory_key": self.plan.key}


def prepare(wanted: Wanted, around: Circumstances) -> Preparation:
    """Raises NotStartable. Takes milliseconds, or tenths of a second for a file not seen before; call it in a thread."""
    files = _files(wanted)
    facts = files.facts
    plan = plan_for(wanted, files, around)
    place = _place(wanted, around)
    bound = engine_limits.memory_bound(
        plan, around.learned.get(plan.key, 0), settings.ENGINE_MEMORY_BOUND, wanted.gpu_layers
    )
    scales = (float(one["scale"]) for one in wanted.lora)
    chosen = Chosen(
        model_file=files.model,
        port=_free_port(around.ports_in_use),
        context_length=plan.load.context_length,
        threads=wanted.threads or place.threads,
        pooling="mean" if wanted.embeddings and not wanted.rerank and not facts.pooling else "",
        draft=files.draft,
        mmproj=files.projector,
        lora=tuple(zip(files.adapters, scales, strict=True)),
        chat_template=_template_file(wanted),
        cpus=place.bound or frozenset(),
        memory_bound=bound,
    )
    return Preparation(chosen, facts, plan, place)


def plan_of(wanted: Wanted, learned: Mapping[str, int], available: int) -> Plan:
    """What it takes where ``available`` bytes may be used. Raises NotStartable when its files are no good."""
    return _plan_within(wanted, _files(wanted), learned, available)


def _files(wanted: Wanted) -> Files:
    """Raises NotStartable unless all are what they should be."""
    path = find_file(wanted)
    facts = _read(path, MODELS)
    draft = (
        _other_file(wanted, wanted.draft_file, CHAT) if wanted.speculative == "draft" and wanted.draft_file else None
    )
    mmproj = _other_file(wanted, wanted.mmproj_file, PROJECTOR) if wanted.mmproj_file else None
    adapters = tuple(_other_file(wanted, one["file"], ADAPTER) for one in wanted.lora)
    return Files(path, facts, draft, mmproj, adapters)


def _plan_within(wanted: Wanted, files: Files, learned: Mapping[str, int], available: int) -> Plan:
    asked = memory_plan.load_of(wanted, files, wanted.context_length or memory.DEFAULT_CONTEXT)
    context = wanted.context_length or memory.default_context(files.facts, asked, available)
    return memory_plan.plan(wanted, files, context, learned)


def need_of(wanted: Wanted) -> Need:
    """Of cores. Both kinds of threads run on the same ones, one after the other."""
    threads = max(wanted.threads, wanted.batch_threads or 0) if wanted.threads else None
    cores = placement.parse_cores(wanted.cores) if wanted.cores else None
    return Need(wanted.name, cores, threads, wanted.numa == "distribute")


def _place(wanted: Wanted, around: Circumstances) -> Place:
    there = topology.read()
    try:
        return placement.place(there, need_of(wanted), around.expected, around.places)
    except placement.CoresMissing as error:
        raise NotStartable("cores_missing", cores=wanted.cores, there=placement.ranges(there.cpus)) from error


def plan_for(wanted: Wanted, files: Files, around: Circumstances) -> Plan:
    """Raises NotStartable when it cannot fit, with the nearest settings that would."""
    free = max(0, machine.available_memory() - around.memory_promised)
    available = memory.usable(free)
    plan = _plan_within(wanted, files, around.learned, available)
    need = plan.need
    if need.at_start <= available:
        return plan
    nearest = memory.nearest(files.facts, plan.load, available - max(0, need.learned))
    raise NotStartable(
        "not_enough_memory",
        needed=need.at_start,
        weights=need.weights - need.mapped,
        kv=need.kv_cache,
        available=free,
        reserve=free - available,
        context=plan.load.context_length,
        slots=wanted.slots,
        nearest=nearest.as_dict() if nearest else {},
    )


def find_file(wanted: Wanted) -> Path:
    return _find(wanted, wanted.file)


def _other_file(wanted: Wanted, file: str, kind: str) -> Path:
    """Beside the model: nothing that is no whole GGUF reaches the engine."""
    path = _find(wanted, file)
    _read(path, {kind})
    return path


def _find(wanted: Wanted, file: str) -> Path:
    try:
        path = model_files.locate(file, wanted.path)
    except (model_files.UnsafePath, OSError, RuntimeError) as error:
        raise NotStartable("path_unsafe", file=file) from error
    try:
        if not path.is_file():
            raise NotStartable("file_missing", file=file, folder=wanted.path or "models/")
    except OSError as error:  # a name too long for the disk, a share in trouble
        raise NotStartable("file_unreadable", file=file, error=error.strerror or str(error)) from error
    return path


def _template_file(wanted: Wanted) -> Path | None:
    """The chat template as a file: the engine takes it as one, and it may be longer than a command line."""
    if not wanted.chat_template:
        return None
    content = wanted.chat_template.encode()
    path: Path = settings.RUN_DIR / "templates" / f"{hashlib.sha256(content).hexdigest()[:32]}.jinja"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise NotStartable("run_folder", folder=str(path.parent), error=error.strerror or str(error)) from error
    return path


def _read(path: Path, kinds: Set[str]) -> GgufFacts:
    try:
        facts = inspection.facts_of(path)
    except GgufError as error:
        raise NotStartable(error.code, **{"file": path.name, **error.params}) from error
    except OSError as error:
        raise NotStartable("file_unreadable", file=path.name, error=error.strerror or str(error)) from error
    if facts.kind not in kinds:
        wanted = next(iter(kinds)) if len(kinds) == 1 else "model"
        raise NotStartable("gguf_wrong_kind", file=path.name, kind=facts.kind, wanted=wanted)
    return facts


def _free_port(taken: frozenset[int]) -> int:
    first: int = settings.LLAMA_CPP_PORT
    last = min(first + PORTS_TRIED, 65536) - 1
    for port in range(first, last + 1):
        if port not in taken and port != settings.SERVER_PORT and process.is_free(port):
            return port
    raise NotStartable("no_free_port", first=first, last=last)
