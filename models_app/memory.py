"""How much memory a replica needs, and the largest context that fits. Pure arithmetic; the machine is read elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from models_app.command_line import PROMPT_CACHE_MIB
from models_app.gguf import GgufFacts

MIB = 1024 * 1024
KV_VALUE_BYTES = 2  # f16, llama-server's default
DEFAULT_CONTEXT = 8192
SMALLEST_CONTEXT = 512
# The process itself, and what one batch of tokens needs while it is computed.
PROCESS_BYTES = 80 * MIB
BATCH_TOKENS = 512


@dataclass(frozen=True)
class MemoryNeed:
    weights: int
    kv_cache: int
    buffers: int
    prompt_cache: int  # grows with use, up to this

    @property
    def at_start(self) -> int:
        return self.weights + self.kv_cache + self.buffers

    @property
    def most(self) -> int:
        return self.at_start + self.prompt_cache


def need(facts: GgufFacts, context_length: int, slots: int) -> MemoryNeed:
    """``context_length`` is that of one slot. For architectures that keep less than full attention this is an upper bound."""
    per_token = facts.layers * facts.kv_heads * (facts.key_length + facts.value_length) * KV_VALUE_BYTES
    scratch = BATCH_TOKENS * 4 * (facts.vocabulary + 8 * facts.embedding_length)
    return MemoryNeed(
        weights=facts.size,
        kv_cache=per_token * context_length * slots,
        buffers=PROCESS_BYTES + scratch,
        prompt_cache=PROMPT_CACHE_MIB * MIB,
    )


def largest_context(facts: GgufFacts, slots: int, available: int, most: int) -> int:
    """The largest of ``most``, its half, its quarter … that fits; 0 when not even the smallest does."""
    context = most
    while context >= min(SMALLEST_CONTEXT, most):
        if need(facts, context, slots).at_start <= available:
            return context
        context //= 2
    return 0


def default_context(facts: GgufFacts, slots: int, available: int) -> int:
    """For a model whose contextLength is null; the smallest one when memory does not even suffice for that."""
    most = min(facts.context_length or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    return largest_context(facts, slots, available, most) or min(SMALLEST_CONTEXT, most)
