"""What a GGUF file says about a model: kind, size, and what decides how much memory its context takes.

See https://github.com/ggml-org/ggml/blob/master/docs/gguf.md for the keys. The header itself is read by ``gguf_reader``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models_app.gguf_reader import MAX_TENSORS, GgufError, Header, Tensor, read_header, shown
from models_app.gguf_tables import BLOCKS, FILE_TYPES

__all__ = ["ADAPTER", "CHAT", "EMBEDDING", "MODELS", "PROJECTOR", "RERANK", "GgufError", "GgufFacts", "read_facts"]

CHAT, EMBEDDING, RERANK, PROJECTOR, ADAPTER, OTHER = "chat", "embedding", "rerank", "projector", "adapter", "other"
MODELS = frozenset({CHAT, EMBEDDING, RERANK})  # what is started by itself
ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "modern-bert", "eurobert", "jina-bert-v2", "jina-bert-v3"}
    | {"gemma-embedding", "t5encoder"}
)
POOLING_RANK = 4
MAX_PARTS = 1000
MAX_LAYERS = 4096
MOST = 1 << 40  # of any number of a model; products of a few of them stay numbers that JSON and databases take
SPLIT_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf\Z")

# Architectures of which only every n-th layer sees the whole context, from llama.cpp's loaders (``set_swa_pattern``, where a file
# does not say it itself); for one that is not here every layer counts as seeing it, which is an upper bound.
WINDOW_EVERY = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gemma-embedding": 6, "cohere2": 4, "gpt-oss": 2, "exaone4": 4, "exaone-moe": 4,
    "olmo2": 4, "afmoe": 4, "llama4": 4, "smallthinker": 4, "modern-bert": 3,
}  # fmt: skip
FULL_FIRST = frozenset({"smallthinker", "modern-bert"})
WINDOW_ITSELF = {"llama4": 8192}
# Of these every n-th layer has attention; the others keep a state of fixed size.
ATTENTION_EVERY = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
STATE_AND_ATTENTION = frozenset({"falcon-h1"})  # both in every layer


@dataclass(frozen=True)
class GgufFacts:
    architecture: str
    kind: str  # chat, embedding, rerank, projector, adapter, other
    name: str
    quantization: str
    parameters: int
    size: int  # bytes, of all parts
    parts: int
    context_length: int  # that the model was trained for; 0: not said
    layers: int
    embedding_length: int
    feed_forward_length: int  # of one token, all experts it uses together
    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    experts: int
    experts_used: int
    tokenizer: str
    vocabulary: int
    merges: int  # pairs of words that its tokenizer joins
    chat_template: bool
    pooling: bool  # says itself how an embedding is made of its tokens
    # What a context keeps, in numbers (not bytes) per token, all layers together, and in bytes per slot.
    kv_values: int  # in layers that see the whole context
    window: int  # tokens that the other layers see; 0: there are none
    window_values: int
    state_bytes: int  # of recurrent layers
    state_width: int  # the inner width of recurrent layers
    # Tensors by how they are stored: [(name of the type, bytes)], so that a plan knows which of them an engine copies.
    stored: tuple[tuple[str, int], ...]
    embedded_bytes: int  # of the token table
    embedded_kind: str
    tied: bool  # that table is multiplied with as well: there is no other one for the output


def read_facts(path: Path, sizes: Sequence[int] = ()) -> GgufFacts:
    """``sizes``: bytes of each part, where only the beginnings of them are there. Raises GgufError when it is no GGUF, is
    damaged, cut short or lacks a part; OSError when it cannot be read. It runs in this process; files that may come from
    anywhere are read by ``models_app.inspection``."""
    header = read_header(path, sizes[0] if sizes else None)
    tensors, size, parts = header.tensors, header.size, 1
    for part in _other_parts(path, header, sizes):
        size += part.size
        parts += 1
        tensors = _together(tensors, part.tensors)
    return facts_of(header.values, tensors, size, parts)


# -- parts ---------------------------------------------------------------------------------------------------------------
def _other_parts(path: Path, first: Header, sizes: Sequence[int]) -> list[Header]:
    """Large models come as ``…-00001-of-00004.gguf``; the engine opens the other parts itself, by these names."""
    count = first.values.get("split.count", 0)
    if not isinstance(count, int) or count <= 1:
        return []
    match = SPLIT_NAME.search(path.name)
    if count > MAX_PARTS or match is None or int(match[2]) != count:
        raise GgufError("gguf_part_name", count=count)
    if int(match[1]) != 1 or first.values.get("split.no", 0) != 0:
        raise GgufError("gguf_not_first_part", part=_part(path, match, 1, count).name)
    return [
        _read_part(
            _part(path, match, number, count), number, count, sizes[number - 1] if number <= len(sizes) else None
        )
        for number in range(2, count + 1)
    ]


def _part(path: Path, match: re.Match[str], number: int, count: int) -> Path:
    return path.with_name(f"{path.name[: match.start()]}-{number:05}-of-{count:05}.gguf")


def _read_part(path: Path, number: int, count: int, size: int | None) -> Header:
    if not path.is_file():
        raise GgufError("gguf_part_missing", part=path.name)
    try:
        header = read_header(path, size)
    except GgufError as error:
        raise GgufError(error.code, **{**error.params, "file": path.name}) from error
    if (header.values.get("split.no"), header.values.get("split.count")) != (number - 1, count):
        raise GgufError("gguf_part_strange", part=path.name)
    return header


def _together(tensors: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    names = {tensor.name for tensor in tensors}
    double = next((tensor.name for tensor in more if tensor.name in names), None)
    if double is not None:
        raise GgufError("gguf_twice", name=shown(double), at=0)
    if len(tensors) + len(more) > MAX_TENSORS:
        raise GgufError("gguf_damaged", what="number of tensors", at=0)
    return [*tensors, *more]


# -- facts ---------------------------------------------------------------------------------------------------------------
class _Keys:
    """The values of an architecture's keys, whatever type the file gives them."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.architecture = shown(str(values.get("general.architecture", "")))

    def __call__(self, key: str, default: int = 0) -> int:
        """The number; of a list the largest one."""
        found = self.list(key)
        return max(found, default=default)

    def list(self, key: str) -> list[int]:
        value = self.values.get(f"{self.architecture}.{key}")
        parts = value if isinstance(value, list) else [value]
        return [int(part) for part in parts if isinstance(part, int) and 0 <= part <= MOST]

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.values

    def per_layer(self, key: str, layers: int, default: int = 0) -> Sequence[int]:
        found = self.list(key)
        if len(found) > 1:
            return (found + [0] * layers)[:layers]
        return [found[0] if found else default] * layers


def facts_of(values: dict[str, Any], tensors: list[Tensor], size: int, parts: int = 1) -> GgufFacts:
    """Of a sound header; whatever its keys say."""
    keys = _Keys(values)
    layers = min(keys("block_count"), MAX_LAYERS)
    heads, embedding = keys("attention.head_count"), keys("embedding_length")
    head_length = embedding // heads if heads else 0
    kv_values, window, window_values, state = _context(keys, layers, heads, head_length)
    table = next((tensor for tensor in tensors if tensor.name == "token_embd.weight"), None)
    return GgufFacts(
        architecture=keys.architecture,
        kind=_kind(keys, {tensor.name for tensor in tensors}),
        name=shown(str(values.get("general.name", ""))),
        quantization=_quantization(values, tensors),
        parameters=sum(tensor.values for tensor in tensors),
        size=size,
        parts=parts,
        context_length=keys("context_length"),
        layers=layers,
        embedding_length=embedding,
        feed_forward_length=_feed_forward(keys),
        heads=heads,
        kv_heads=keys("attention.head_count_kv", heads),
        key_length=keys("attention.key_length", head_length),
        value_length=keys("attention.value_length", head_length),
        experts=keys("expert_count"),
        experts_used=keys("expert_used_count"),
        tokenizer=shown(str(values.get("tokenizer.ggml.model", ""))),
        vocabulary=_length(values, "tokenizer.ggml.tokens"),
        merges=_length(values, "tokenizer.ggml.merges"),
        chat_template="tokenizer.chat_template" in values,
        pooling=keys.has("pooling_type"),
        kv_values=kv_values,
        window=window,
        window_values=window_values,
        state_bytes=state,
        state_width=keys("ssm.inner_size"),
        stored=_stored(tensors),
        embedded_bytes=table.nbytes if table else 0,
        embedded_kind=BLOCKS[table.kind][0] if table and table.kind in BLOCKS else "",
        tied=not any(tensor.name == "output.weight" for tensor in tensors),
    )


def _length(values: dict[str, Any], key: str) -> int:
    """Of an array that is not kept."""
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST else 0


def _kind(keys: _Keys, tensors: set[str]) -> str:
    type_ = keys.values.get("general.type")
    if type_ == "adapter" or "adapter.type" in keys.values:
        return ADAPTER
    if type_ == "mmproj" or keys.architecture == "clip":
        return PROJECTOR
    if not keys.architecture or type_ not in (None, "model"):
        return OTHER
    if keys("pooling_type") == POOLING_RANK or tensors & {"cls.weight", "cls.output.weight"}:
        return RERANK
    causal = keys.values.get(f"{keys.architecture}.attention.causal", True)
    if keys.architecture in ENCODERS or keys("pooling_type") or causal is False:
        return EMBEDDING
    return CHAT


def _quantization(values: dict[str, Any], tensors: list[Tensor]) -> str:
    """As the file names it; else the type of most of its bytes."""
    file_type = values.get("general.file_type")
    if isinstance(file_type, int) and file_type in FILE_TYPES and not isinstance(file_type, bool):
        return FILE_TYPES[file_type]
    return max(_stored(tensors), key=lambda one: one[1], default=("", 0))[0]


def _stored(tensors: list[Tensor]) -> tuple[tuple[str, int], ...]:
    """Matrices only: what has one dimension or none is never multiplied with."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.kind in BLOCKS and tensor.values > tensor.row:
            sizes[BLOCKS[tensor.kind][0]] += tensor.nbytes
    return tuple(sorted(sizes.items()))


def _feed_forward(keys: _Keys) -> int:
    if keys("expert_used_count"):
        each = keys("expert_feed_forward_length") or keys("feed_forward_length")
        return min(MOST, each * keys("expert_used_count"))
    return keys("feed_forward_length")


# -- what a context keeps ------------------------------------------------------------------------------------------------
def _context(keys: _Keys, layers: int, heads: int, head_length: int) -> tuple[int, int, int, int]:
    """Numbers per token in full layers, the window, numbers per token in layers with that window, bytes of states per slot."""
    if keys.architecture in ENCODERS:  # all tokens are there at once: nothing is kept
        return 0, 0, 0, 0
    kept = layers - min(layers, keys("attention.shared_kv_layers") + keys("nextn_predict_layers"))
    recurrent = _recurrent(keys, layers)
    windowed, window = _windowed(keys, layers)
    kv_heads = keys.per_layer("attention.head_count_kv", layers, heads)
    full, narrow = _values(keys, head_length, ""), _values(keys, head_length, "_swa")
    both = keys.architecture in STATE_AND_ATTENTION
    kv_values = window_values = 0
    for layer in range(kept):
        if recurrent[layer] and not both:
            continue
        if windowed[layer]:
            window_values += kv_heads[layer] * narrow
        else:
            kv_values += kv_heads[layer] * full
    states = min(MOST, sum(recurrent) * _state_bytes(keys))
    return min(MOST, kv_values), window if window_values else 0, min(MOST, window_values), states


def _values(keys: _Keys, head_length: int, suffix: str) -> int:
    """Of one head and token. Where keys and values are kept together in a compressed form (MLA), it is kept once."""
    key, value = keys("attention.key_length", head_length), keys("attention.value_length", head_length)
    if keys.has("attention.key_length_mla"):
        return key
    return keys(f"attention.key_length{suffix}", key) + keys(f"attention.value_length{suffix}", value)


def _windowed(keys: _Keys, layers: int) -> tuple[Sequence[bool], int]:
    arch = keys.architecture
    window = keys("attention.sliding_window", WINDOW_ITSELF.get(arch, 0))
    pattern = keys.list("attention.sliding_window_pattern")
    if not window or (not pattern and arch not in WINDOW_EVERY):
        return [False] * layers, 0
    if len(pattern) > 1:
        return [bool(one) for one in (pattern + [0] * layers)[:layers]], window
    every = pattern[0] if pattern else WINDOW_EVERY[arch]
    if arch in FULL_FIRST:
        return [not every or layer % every != 0 for layer in range(layers)], window
    return [not every or layer % every < every - 1 for layer in range(layers)], window


def _recurrent(keys: _Keys, layers: int) -> Sequence[bool]:
    arch = keys.architecture
    if not (keys("ssm.state_size") or keys("wkv.head_size") or keys("shortconv.l_cache")):
        return [False] * layers
    if arch in STATE_AND_ATTENTION:
        return [True] * layers
    if arch in ATTENTION_EVERY:
        every = keys("full_attention_interval", ATTENTION_EVERY[arch])
        return [not every or (layer + 1) % every != 0 for layer in range(layers)]
    return [heads == 0 for heads in keys.per_layer("attention.head_count_kv", layers)]


def _state_bytes(keys: _Keys) -> int:
    """Of one layer and slot, in 32 bits (llama.cpp, ``n_embd_r`` and ``n_embd_s``)."""
    embedding, head = keys("embedding_length"), keys("wkv.head_size")
    if head:
        return min(MOST, 4 * embedding * (keys("token_shift_count", 2) + head))
    if keys("shortconv.l_cache"):
        return min(MOST, 4 * embedding * (keys("shortconv.l_cache") - 1))
    inner, state = keys("ssm.inner_size"), keys("ssm.state_size")
    convolution = max(0, keys("ssm.conv_kernel") - 1) * (inner + 2 * keys("ssm.group_count") * state)
    return min(MOST, 4 * (convolution + state * inner))
