"""From a model's settings and files to its memory plan: what ``models_app.memory`` counts with, and what it has learned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from models_app import inspection, machine, memory, model_files
from models_app.gguf import GgufError, GgufFacts
from models_app.memory import Load, MemoryNeed


class Settings(Protocol):
    """Of ``Wanted`` and ``ModelConfig``: what memory depends on."""

    @property
    def slots(self) -> int: ...
    @property
    def cache_type(self) -> str: ...
    @property
    def prompt_cache(self) -> int: ...
    @property
    def ubatch(self) -> int | None: ...
    @property
    def flash_attention(self) -> str: ...
    @property
    def embeddings(self) -> bool: ...
    @property
    def rerank(self) -> bool: ...


@dataclass(frozen=True)
class Files:
    """A model's files; all but the first may be missing."""

    model: Path
    facts: GgufFacts
    draft: Path | None = None
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()

    @property
    def all(self) -> list[Path]:
        return [path for path in (self.model, self.draft, self.projector, *self.adapters) if path is not None]


@dataclass(frozen=True)
class Plan:
    load: Load
    need: MemoryNeed
    key: str


def load_of(settings: Settings, files: Files, context_length: int) -> Load:
    return Load(
        context_length=context_length,
        slots=settings.slots,
        cache_type=settings.cache_type,
        prompt_cache=settings.prompt_cache,
        ubatch=settings.ubatch,
        flash_attention=settings.flash_attention != "off",
        encodes=settings.embeddings or settings.rerank,
        repacked=machine.repacked_formats(),
        draft=_facts(files.draft),
        projector=_size(files.projector),
        adapters=sum(_size(path) for path in files.adapters),
    )


def plan(settings: Settings, files: Files, context_length: int, learned: Mapping[str, int]) -> Plan:
    load = load_of(settings, files, context_length)
    key = key_of(files, load)
    return Plan(load, memory.need(files.facts, load).corrected(learned.get(key)), key)


def key_of(files: Files, load: Load) -> str:
    """The same for the same files and the same settings that matter."""
    matters: dict[str, Any] = asdict(replace(load, draft=None, repacked=frozenset()))
    matters |= {"repacked": sorted(load.repacked), "files": [model_files.identity(path) for path in files.all]}
    return hashlib.sha256(json.dumps(matters, sort_keys=True).encode()).hexdigest()


def _facts(path: Path | None) -> GgufFacts | None:
    """A second file that cannot be read is found out before a start; here it counts nothing."""
    try:
        return inspection.facts_of(path) if path else None
    except (GgufError, OSError):
        return None


def _size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0
