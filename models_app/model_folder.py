"""The GGUF files of the models folder: what each is, or why it is rejected, and with which settings it fits on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from models_app import inspection, machine, memory, model_files, reasons
from models_app.gguf import EMBEDDING, MODELS, RERANK, SPLIT_NAME, GgufError, GgufFacts
from models_app.memory import Load

MOST_FILES = 500
DEPTH = 3  # folders below the models folder
AT_ONCE = 4  # files looked into at the same time
CONTEXTS = (2048, 8192, 32768, 131072)
SLOTS = (1, 4)
CACHE_TYPES = ("f16", "q8_0")
# What only the memory plan needs.
INNER_FACTS = frozenset(
    {"merges", "kv_values", "window_values", "state_bytes", "state_width", "stored"}
    | {"embedded_bytes", "embedded_kind", "tied"}
)


@dataclass(frozen=True)
class Fit:
    context_length: int
    slots: int
    cache_type: str
    needed: int  # bytes that must be free for a start
    fits: bool


@dataclass(frozen=True)
class ModelFile:
    name: str  # seen from the models folder
    size: int  # bytes, of all parts where they are known
    facts: GgufFacts | None
    rejected: dict[str, Any] | None  # of models_app.reasons
    fits: tuple[Fit, ...] = ()

    @property
    def why_rejected(self) -> str:
        return reasons.text(self.rejected)


def usable_memory() -> int:
    """Bytes that a new replica may take now."""
    return memory.usable(machine.available_memory())


def files() -> list[ModelFile]:
    """By name. The first time a file is seen it takes a tenth of a second, then nothing."""
    usable = usable_memory()
    folder = Path(settings.MODELS_PATH)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda path: _inside(path, _shown(path, folder), usable), _paths(folder)))


def _inside(path: Path, name: str, usable: int) -> ModelFile:
    """A link that leads out of the places where models may lie is not followed."""
    try:
        return look_at(model_files.locate(name, "models/"), name, usable)
    except (model_files.UnsafePath, OSError, RuntimeError):
        return ModelFile(name, 0, None, reasons.reason("path_unsafe", file=path.name))


def look_at(path: Path, name: str, usable: int) -> ModelFile:
    try:
        size = path.stat().st_size
        facts = inspection.facts_of(path)
    except GgufError as error:
        return ModelFile(name, size, None, reasons.reason(error.code, **{"file": path.name, **error.params}))
    except OSError as error:
        why = reasons.reason("file_unreadable", file=path.name, error=error.strerror or str(error))
        return ModelFile(name, 0, None, why)
    return ModelFile(name, facts.size, facts, None, tuple(fit_table(facts, usable)))


def _shown(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return name.encode("utf-8", "replace").decode("utf-8")


def _paths(folder: Path) -> list[Path]:
    """Other parts than the first belong to it."""
    found = sorted(_walk(folder))
    return [path for path in found if not _is_later_part(path)][:MOST_FILES]


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        if len(Path(place).relative_to(folder).parts) >= DEPTH:
            folders.clear()
        yield from (Path(place) / name for name in names if name.lower().endswith(".gguf"))


def _is_later_part(path: Path) -> bool:
    match = SPLIT_NAME.search(path.name)
    if match is None or match[1] == "00001":
        return False
    return path.with_name(f"{path.name[: match.start()]}-00001-of-{match[2]}.gguf").exists()


# -- what fits -----------------------------------------------------------------------------------------------------------
def fit_table(facts: GgufFacts, usable: int) -> Iterator[Fit]:
    """For models; contexts up to the one that it was trained for."""
    if facts.kind not in MODELS:
        return
    encodes = facts.kind in (EMBEDDING, RERANK)
    for context in contexts_of(facts):
        for slots in SLOTS:
            for cache_type in CACHE_TYPES[:1] if encodes else CACHE_TYPES:
                load = Load(
                    context, slots, cache_type, encodes=encodes, repacked=machine.repacked_formats(), prompt_cache=0
                )
                needed = memory.need(facts, load).at_start
                yield Fit(context, slots, cache_type, needed, needed <= usable)


def contexts_of(facts: GgufFacts) -> list[int]:
    trained = facts.context_length or memory.DEFAULT_CONTEXT
    below = [context for context in CONTEXTS if context < trained]
    return [*below[:3], trained] if trained <= CONTEXTS[-1] else below


# -- as the API and the command show it --------------------------------------------------------------------------------------
def facts_object(facts: GgufFacts) -> dict[str, Any]:
    return {_camel(name): value for name, value in asdict(facts).items() if name not in INNER_FACTS}


def file_object(file: ModelFile) -> dict[str, Any]:
    error = {"code": file.rejected["code"], "message": file.why_rejected} if file.rejected else None
    return {
        "file": file.name,
        "size": file.size,
        "error": error,
        "gguf": facts_object(file.facts) if file.facts else {},
        "fits": [
            {
                "contextLength": fit.context_length,
                "slots": fit.slots,
                "cacheType": fit.cache_type,
                "memory": fit.needed,
                "fits": fit.fits,
            }
            for fit in file.fits
        ],
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
