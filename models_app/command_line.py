"""The command line of a llama-server, built from a model's settings. Pure: no files, no processes.

An allow-list: every flag that can ever reach an engine is written here, none of them runs tools, opens an RPC port or serves
files, and no value from a user stands where a flag could (each value follows its own flag, and names are checked).

Flags of llama-server change with its version. REQUIRED ones exist in every version since October 2025 (the first with
``--cache-ram``); OPTIONAL ones are given when ``llama-server --help`` lists them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

BUILDER = 5  # raise it when the same settings give another command line: running replicas are then replaced
MAX_UBATCH = 8192
# Newer engines guess ahead by a draft model only when this kind is named; older ones do not know the name. No flag, but known
# by the same text.
DRAFT_TYPE = "draft-simple"
# The part of a prompt that a slot must hold to be taken without a look at the host cache. With the engine's own tenth, one that
# has no more than the system prompt hides that the cache has the whole conversation.
SIMILARITY = "0.5"
BATCH = 2048  # the engine's default for prompt tokens handed in at once, of which --ubatch-size are computed together


@dataclass(frozen=True)
class Wanted:
    """What one replica of a model should be, as the administrator set it (None: chosen at the start)."""

    name: str
    file: str
    path: str
    context_length: int | None
    max_tokens: int
    temperature: float
    top_p: float
    repeat_penalty: float
    threads: int | None
    gpu_layers: int
    slots: int
    embeddings: bool
    restart_number: int
    rerank: bool = False
    batch_threads: int | None = None
    ubatch: int | None = None
    cache_type: str = "f16"
    flash_attention: str = "auto"
    prompt_cache: int = 256  # MiB; the engine's own default of 8 GiB a process has brought machines down
    speculative: str = "off"
    draft_file: str = ""
    mmproj_file: str = ""
    lora: list[dict[str, Any]] = field(default_factory=list)
    chat_template: str = ""
    cores: str | None = None
    numa: str = "off"

    def fingerprint(self, engine: str) -> str:
        """Changes when a replica must be replaced. Chosen values are not part of it: they depend on the machine's mood."""
        content = json.dumps([BUILDER, engine, asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class Chosen:
    """What was decided at the start of one replica."""

    model_file: Path
    port: int
    context_length: int  # of each slot
    threads: int
    pooling: str = ""
    draft: Path | None = None
    mmproj: Path | None = None
    lora: tuple[tuple[Path, float], ...] = ()
    chat_template: Path | None = None
    # What it is held to; no part of the command line.
    cpus: frozenset[int] = frozenset()  # empty: it may run on all
    memory_bound: int = 0  # bytes; 0: none


def build(wanted: Wanted, chosen: Chosen, known_flags: frozenset[str] | None = None) -> list[str]:
    """The arguments after the program. ``known_flags``: those the engine lists in its help, None: all of ours."""
    required = [
        *("--model", str(chosen.model_file), "--alias", wanted.name),
        *("--host", "127.0.0.1", "--port", str(chosen.port)),
        # llama-server divides its context among the slots.
        *("--ctx-size", str(chosen.context_length * wanted.slots), "--parallel", str(wanted.slots)),
        *("--threads", str(chosen.threads), "--threads-batch", str(wanted.batch_threads or chosen.threads)),
        *("--n-gpu-layers", str(wanted.gpu_layers), "--n-predict", str(wanted.max_tokens)),
        *("--temp", _number(wanted.temperature), "--top-p", _number(wanted.top_p)),
        *("--repeat-penalty", _number(wanted.repeat_penalty)),
        *("--cache-ram", str(wanted.prompt_cache)),
        *_batch(wanted, chosen),
        *_kind(wanted, chosen),
    ]
    return [*required, *_optional(wanted, chosen, known_flags)]


def input_batch(context_length: int, slots: int) -> int:
    """Tokens in a batch of a model that makes vectors. An input must fit into one, whose default of 512 tokens is much shorter
    than the context. llama.cpp shares it out among the slots, and ends itself at the start (GGML_ASSERT) when a rest is left."""
    return -(-min(context_length, MAX_UBATCH) // slots) * slots


def _batch(wanted: Wanted, chosen: Chosen) -> list[str]:
    if _makes_vectors(wanted):
        whole = str(input_batch(chosen.context_length, wanted.slots))
        return ["--batch-size", whole, "--ubatch-size", whole]
    if wanted.ubatch:
        return ["--batch-size", str(max(BATCH, wanted.ubatch)), "--ubatch-size", str(wanted.ubatch)]
    return []


def _kind(wanted: Wanted, chosen: Chosen) -> list[str]:
    if wanted.rerank:
        return ["--embeddings", "--reranking", "--pooling", "rank"]
    if wanted.embeddings:
        return ["--embeddings", *(["--pooling", chosen.pooling] if chosen.pooling else [])]
    files = [*(["--mmproj", str(chosen.mmproj)] if chosen.mmproj else [])]
    for path, scale in chosen.lora:
        files += ["--lora", str(path)] if scale == 1 else ["--lora-scaled", f"{path}:{_number(scale)}"]
    if chosen.chat_template:
        files += ["--chat-template-file", str(chosen.chat_template)]
    return files


def _speed(wanted: Wanted, chosen: Chosen, known: frozenset[str] | None) -> list[list[str]]:
    flags = []
    if wanted.cache_type != "f16":
        flags += [["--cache-type-k", wanted.cache_type], ["--cache-type-v", wanted.cache_type]]
    if wanted.flash_attention != "auto":
        flags.append(["--flash-attn", wanted.flash_attention])
    if wanted.numa != "off":
        flags.append(["--numa", wanted.numa])
    if wanted.speculative == "ngram":
        flags.append(["--spec-type", "ngram-simple"])
    if wanted.speculative == "draft" and chosen.draft:
        flags.append(["--model-draft", str(chosen.draft)])
        if known is None or DRAFT_TYPE in known:
            flags.append(["--spec-type", DRAFT_TYPE])
    return flags


def _optional(wanted: Wanted, chosen: Chosen, known: frozenset[str] | None) -> list[str]:
    # The page was called --no-webui until the flag was renamed.
    page = "--no-ui" if known is None or "--no-ui" in known else "--no-webui"
    # Its other default makes the context smaller, silently, when memory is short.
    candidates = (
        [page],
        ["--no-slots"],
        ["--metrics"],
        ["--no-context-shift"],
        ["--jinja"],
        ["--offline"],
        ["--fit", "off"],
        *([["--slot-prompt-similarity", SIMILARITY]] if wanted.prompt_cache and not _makes_vectors(wanted) else []),
        # Else two texts in one batch are cut to the shorter one's length, and the mean of the longer one is that of its rest.
        *([["--kv-unified"]] if wanted.embeddings and not wanted.rerank else []),
        *_speed(wanted, chosen, known),
    )
    return [part for flags in candidates if known is None or flags[0] in known for part in flags]


def _makes_vectors(wanted: Wanted) -> bool:
    return wanted.embeddings or wanted.rerank


def _number(value: float) -> str:
    return f"{value:g}"
