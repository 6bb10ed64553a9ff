"""How much memory a replica needs, and the settings nearest to those asked for that fit. Pure arithmetic; the machine and the
files are read elsewhere.

The formula, from llama.cpp's sources (``llama-kv-cache-iswa``, ``llama-memory-recurrent``, ``ggml-cpu/repack``) and the sizes
that the engine logs; docs/models.md tells it in words, tests/test_memory_measured.py compares it with running engines:

* weights: the file, mapped; matrices in a format that the processor's kernels want in another order are held a second time.
* context: numbers per token × tokens × slots. Tokens are padded to 256. Layers with a window keep the window and one batch.
* buffers: one batch of ``ubatch`` tokens: three times the feed-forward width and five times the embedding in 32 bits, the mask
  in 16; without flash attention the scores of all heads; for embeddings a row as wide as the vocabulary for each token.
* the process: Python, the engine's code, and about 230 bytes for each word of the vocabulary, 250 for each pair it joins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from models_app import machine
from models_app.command_line import input_batch
from models_app.gguf import GgufFacts

KIB, MIB = 1024, 1024 * 1024
# Bytes of one value of the context, by its format: ggml stores 32 values of q8_0 in 34 bytes, of q4_0 in 18.
KV_VALUE_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
PROMPT_CACHE_MIB = 256
DEFAULT_CONTEXT = 8192
SMALLEST_CONTEXT = 512
UBATCH = 512
PADDING = 256
PROCESS_BYTES = 31 * MIB
BYTES_PER_WORD, BYTES_PER_MERGE = 230, 250
# Copies of what a window or a recurrent layer keeps, taken on the way so that a conversation can be taken up again.
CHECKPOINTS = 32
CHECKPOINT_TOKENS = 8192
PROJECTOR_BUFFERS = 64 * MIB  # beside its file, for one picture; not measured
EXACT = 0.9  # the plan is that near to what is taken after a long request
# Kept free for everything else on the machine: this share of what is available, and at least what is always kept free, lest
# what has just started must make room again.
RESERVE_SHARE = 0.05


@dataclass(frozen=True)
class Load:
    """What a replica is started with, as far as memory depends on it."""

    context_length: int  # of each slot
    slots: int = 1
    cache_type: str = "f16"
    prompt_cache: int = PROMPT_CACHE_MIB  # MiB
    ubatch: int | None = None
    flash_attention: bool = True
    encodes: bool = False  # embeddings and reranking
    repacked: frozenset[str] = frozenset()  # formats of which this processor's kernels hold a copy
    draft: GgufFacts | None = None
    projector: int = 0  # bytes of the file
    adapters: int = 0  # bytes of all files

    @property
    def batch(self) -> int:
        """As ``command_line`` asks for it: an input to be embedded must fit into one batch."""
        if self.encodes:
            return input_batch(self.context_length, self.slots)
        return min(self.ubatch or UBATCH, padded(self.context_length) * self.slots)


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes. ``mapped``: the part of the weights that copies make superfluous; the system takes it back when memory is short."""

    weights: int
    kv_cache: int
    buffers: int
    prompt_cache: int  # grows with use, up to this
    mapped: int = 0
    learned: int = 0  # what measuring has added or taken away

    @property
    def resident(self) -> int:
        """After the first long request."""
        return self.weights + self.kv_cache + self.buffers + self.learned

    @property
    def at_start(self) -> int:
        """What must be free for a start."""
        return self.resident - self.mapped

    @property
    def most(self) -> int:
        return self.resident + self.prompt_cache

    def corrected(self, measured: int | None) -> MemoryNeed:
        """With what a replica of the same files and settings took at most.

        What is above the plan is added, at most as much again. Of what it stayed a little below, half is taken off, never
        anything of weights and context. One that stayed far below has not been used to the full: nothing is learned from it.
        """
        if not measured:
            return self
        if measured > self.most:
            return replace(self, learned=min(measured - self.most, self.resident))
        if self.resident * EXACT <= measured < self.resident:
            return replace(self, learned=-min((self.resident - measured) // 2, self.buffers))
        return self


def padded(tokens: int) -> int:
    return -(-tokens // PADDING) * PADDING


def reserve(available: int) -> int:
    return max(machine.low_mark(), int(available * RESERVE_SHARE))


def usable(available: int) -> int:
    return max(0, available - reserve(available))


def need(facts: GgufFacts, load: Load) -> MemoryNeed:
    copied = _copied(facts, load.repacked)
    kv_cache, buffers = _context(facts, load), _buffers(facts, load)
    weights = facts.size + copied
    if load.draft is not None:
        own = need(load.draft, replace(load, draft=None, projector=0, adapters=0, prompt_cache=0))
        weights += own.weights
        kv_cache += own.kv_cache
        buffers += own.buffers - PROCESS_BYTES
        copied += own.mapped
    return MemoryNeed(
        weights=weights + load.projector + load.adapters,
        kv_cache=kv_cache,
        buffers=buffers + (PROJECTOR_BUFFERS if load.projector else 0),
        prompt_cache=load.prompt_cache * MIB + _checkpoints(facts, load),
        mapped=copied,
    )


def _copied(facts: GgufFacts, repacked: frozenset[str]) -> int:
    """Bytes of matrices that are held a second time. The token table is one only where it is the output as well."""
    size = sum(size for kind, size in facts.stored if kind in repacked)
    if size and not facts.tied:
        size = max(0, size - (facts.embedded_bytes if facts.embedded_kind in repacked else 0))
    return size


def _window_cells(facts: GgufFacts, load: Load) -> int:
    return padded(min(padded(load.context_length), facts.window + load.batch))


def _context(facts: GgufFacts, load: Load) -> int:
    each = KV_VALUE_BYTES[load.cache_type]
    full = facts.kv_values * padded(load.context_length)
    narrow = facts.window_values * _window_cells(facts, load) if facts.window else 0
    return int(each * (full + narrow) * load.slots) + facts.state_bytes * load.slots


def _checkpoints(facts: GgufFacts, load: Load) -> int:
    once = facts.state_bytes
    if facts.window:
        once += int(facts.window_values * min(facts.window, load.context_length) * KV_VALUE_BYTES[load.cache_type])
    return load.slots * once * min(CHECKPOINTS, 1 + load.context_length // CHECKPOINT_TOKENS)


def _buffers(facts: GgufFacts, load: Load) -> int:
    tokens, context = load.batch, padded(load.context_length)
    wide = 3 * facts.feed_forward_length + 5 * facts.embedding_length
    if not (facts.kv_values or facts.window_values or facts.state_bytes):  # an encoder: no gate, no cache
        wide = 2 * facts.feed_forward_length + facts.embedding_length
    wide = max(wide, 8 * facts.state_width)
    wide += (context + (_window_cells(facts, load) if facts.window else 0)) // 2
    if not load.flash_attention:
        wide = max(wide, (facts.heads + 1) * context + 13 * facts.embedding_length // 2)
    outputs = load.slots
    if load.encodes:
        outputs = tokens
    row = facts.vocabulary + facts.embedding_length
    process = PROCESS_BYTES + BYTES_PER_WORD * facts.vocabulary + BYTES_PER_MERGE * facts.merges
    return process + 4 * (tokens * wide + outputs * row)


# -- what fits -------------------------------------------------------------------------------------------------------------
def largest_context(facts: GgufFacts, load: Load, available: int) -> int:
    """The largest of the load's context, its half, its quarter … that fits; 0 when not even the smallest does."""
    context = most = load.context_length
    while context >= min(SMALLEST_CONTEXT, most):
        if need(facts, replace(load, context_length=context)).at_start <= available:
            return context
        context //= 2
    return 0


def default_context(facts: GgufFacts, load: Load, available: int) -> int:
    """For a model whose contextLength is null; the smallest one when memory does not even suffice for that."""
    most = min(facts.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return largest_context(facts, replace(load, context_length=most), available) or min(SMALLEST_CONTEXT, most)


@dataclass(frozen=True)
class Change:
    """Settings that fit; those that need not change are None."""

    cache_type: str | None = None
    slots: int | None = None
    context_length: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def nearest(facts: GgufFacts, load: Load, available: int) -> Change | None:
    """The least change with which it fits: the context's precision first (nobody gets less), then half the slots and so on down
    to one, then half the context and so on; each with fewer bits only where that is needed too. None when nothing helps."""
    for change in _changes(load):
        if need(facts, replace(load, **change.as_dict())).at_start <= available:
            return change
    return None


def _changes(load: Load) -> Iterator[Change]:
    fewer_bits = "q8_0" if load.cache_type == "f16" and load.flash_attention and not load.encodes else None
    precisions = [None, fewer_bits] if fewer_bits else [None]
    for context in _halves(load.context_length, SMALLEST_CONTEXT):
        for slots in _halves(load.slots, 1):
            for precision in precisions:
                yield Change(
                    cache_type=precision,
                    slots=slots if slots != load.slots else None,
                    context_length=context if context != load.context_length else None,
                )


def _halves(value: int, least: int) -> Iterator[int]:
    yield value
    while value // 2 >= least:
        value //= 2
        yield value
