"""The command line of a llama-server, built from a model's settings. Pure: no files, no processes.

An allow-list: every flag that can ever reach an engine is written here, none of them runs tools, opens an RPC port or serves
files, and no value from a user stands where a flag could (each value follows its own flag, and names are checked).

Flags of llama-server change with its version. REQUIRED ones exist in every version since October 2025 (the first with
``--cache-ram``); OPTIONAL ones are given when ``llama-server --help`` lists them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

BUILDER = 1  # raise it when the same settings give another command line: running replicas are then replaced
PROMPT_CACHE_MIB = 256  # llama-server's own default of 8 GiB a process has brought machines down
MAX_UBATCH = 8192


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


def build(wanted: Wanted, chosen: Chosen, known_flags: frozenset[str] | None = None) -> list[str]:
    """The arguments after the program. ``known_flags``: those the engine lists in its help, None: all of ours."""
    required = [
        *("--model", str(chosen.model_file), "--alias", wanted.name),
        *("--host", "127.0.0.1", "--port", str(chosen.port)),
        # llama-server divides its context among the slots.
        *("--ctx-size", str(chosen.context_length * wanted.slots), "--parallel", str(wanted.slots)),
        *("--threads", str(chosen.threads), "--threads-batch", str(chosen.threads)),
        *("--n-gpu-layers", str(wanted.gpu_layers), "--n-predict", str(wanted.max_tokens)),
        *("--temp", _number(wanted.temperature), "--top-p", _number(wanted.top_p)),
        *("--repeat-penalty", _number(wanted.repeat_penalty)),
        *("--cache-ram", str(PROMPT_CACHE_MIB)),
    ]
    return [*required, *(_embedding_flags(chosen) if wanted.embeddings else []), *_optional(known_flags)]


def _embedding_flags(chosen: Chosen) -> list[str]:
    # An embedding input must fit into one batch, whose default of 512 tokens is much shorter than the context.
    batch = str(min(chosen.context_length, MAX_UBATCH))
    pooling = ["--pooling", chosen.pooling] if chosen.pooling else []
    return ["--embeddings", "--batch-size", batch, "--ubatch-size", batch, *pooling]


def _optional(known: frozenset[str] | None) -> list[str]:
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
    )
    return [part for flags in candidates if known is None or flags[0] in known for part in flags]


def _number(value: float) -> str:
    return f"{value:g}"
