"""Models with random weights, large enough that a tenth of their memory means something, made by the format's own package.

Kept in tests/output/cache; a few seconds to make, 50 to 150 MB each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize

from tests.running_service import CACHE

MADE = 2  # raise it when the same name means another file
TILE = 64


@dataclass(frozen=True)
class Shape:
    arch: str
    kind: Kind
    embedding: int = 1024
    layers: int = 8
    heads: int = 16
    kv_heads: int = 4
    feed_forward: int = 2816
    vocabulary: int = 32_000
    context: int = 8192
    experts: int = 0
    window: int = 0
    reranks: bool = False
    infills: bool = False

    @property
    def head(self) -> int:
        return self.embedding // self.heads

    @property
    def name(self) -> str:
        kind = f"{'rerank-' if self.reranks else ''}{'infill-' if self.infills else ''}{self.kind.name}"
        return f"{self.arch}-{kind}-{self.embedding}x{self.layers}-{MADE}.gguf"


SHAPES = {
    shape.arch: shape
    for shape in (
        Shape("llama", Kind.Q4_K),
        Shape("qwen2", Kind.Q8_0, vocabulary=60_000, layers=6),
        Shape("gemma3", Kind.Q4_0, layers=12, window=512, vocabulary=80_000),
        Shape("qwen3moe", Kind.Q4_0, layers=6, experts=8, feed_forward=1024, vocabulary=60_000),
        Shape("phi3", Kind.Q5_0, layers=8, kv_heads=16),
        Shape("bert", Kind.F16, embedding=768, heads=12, kv_heads=12, layers=6, feed_forward=3072, context=512),
        Shape("mamba", Kind.Q8_0, layers=10, vocabulary=50_000, heads=0, kv_heads=0),
    )
}


# As small as a real one's form allows.
EMBEDDER = Shape("bert", Kind.Q8_0, 64, 2, 4, 4, 128, vocabulary=1000, context=512)
RERANKER = Shape("bert", Kind.F16, 64, 2, 4, 4, 128, vocabulary=1000, context=512, reranks=True)
FILLER = Shape("llama", Kind.Q8_0, 64, 2, 4, 4, 128, vocabulary=1000, context=4096, infills=True)
# Tokens around what is missing in a text, as code models have them: the key of each in the file, and the token.
AROUND = {
    "pre": "<|fim_prefix|>",
    "suf": "<|fim_suffix|>",
    "mid": "<|fim_middle|>",
    "rep": "<|repo_name|>",
    "sep": "<|file_sep|>",
}


def random_projector(path: Path, width: int) -> Path:
    """The second file of a model that sees pictures, of the form that Gemma 3 has: sixteen patches become one token of
    ``width`` numbers, which is the embedding length of the model beside it."""
    embedding, feed_forward, layers, image, patch = 64, 128, 2, 56, 14
    writer, random = GGUFWriter(path, "clip"), np.random.default_rng(1)
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "gemma3")
    writer.add_bool("clip.use_gelu", True)
    keys = {"image_size": image, "patch_size": patch, "embedding_length": embedding, "feed_forward_length": feed_forward,
            "block_count": layers, "projection_dim": width, "attention.head_count": 4}  # fmt: skip
    for name, value in keys.items():
        writer.add_uint32(f"clip.vision.{name}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)

    def tensor(name: str, *size: int) -> None:
        writer.add_tensor(name, (random.standard_normal(size) * 0.05).astype(np.float32))

    tensor("v.patch_embd.weight", embedding, 3, patch, patch)
    tensor("v.patch_embd.bias", embedding)
    tensor("v.position_embd.weight", (image // patch) ** 2, embedding)
    for layer in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            tensor(f"v.blk.{layer}.{name}.weight", embedding, embedding)
            tensor(f"v.blk.{layer}.{name}.bias", embedding)
        for name in ("ln1", "ln2"):
            tensor(f"v.blk.{layer}.{name}.weight", embedding)
            tensor(f"v.blk.{layer}.{name}.bias", embedding)
        tensor(f"v.blk.{layer}.ffn_up.weight", feed_forward, embedding)
        tensor(f"v.blk.{layer}.ffn_up.bias", feed_forward)
        tensor(f"v.blk.{layer}.ffn_down.weight", embedding, feed_forward)
        tensor(f"v.blk.{layer}.ffn_down.bias", embedding)
    tensor("v.post_ln.weight", embedding)
    tensor("v.post_ln.bias", embedding)
    tensor("mm.input_projection.weight", embedding, width)
    tensor("mm.soft_emb_norm.weight", embedding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_model(shape: Shape) -> Path:
    """Made once for all test runs."""
    folder = CACHE / "random"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / shape.name
    with filelock.FileLock(CACHE / "lock-random", timeout=600):
        if not path.exists():
            partial = path.with_suffix(".partial")
            _write(partial, shape)
            partial.rename(path)
    return path


def _write(path: Path, shape: Shape) -> None:
    writer = GGUFWriter(path, shape.arch)
    writer.add_name("Random weights")
    _keys(writer, shape)
    _vocabulary(writer, shape)
    for name, size in _tensors(shape):
        _tensor(writer, name, size, shape.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _keys(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    if shape.arch == "mamba":
        writer.add_ssm_conv_kernel(4)
        writer.add_ssm_inner_size(2 * shape.embedding)
        writer.add_ssm_state_size(16)
        writer.add_ssm_time_step_rank(64)
    else:
        writer.add_head_count_kv(shape.kv_heads)
        writer.add_rope_dimension_count(shape.head)
        writer.add_key_length(shape.head)
        writer.add_value_length(shape.head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_layer_norm_rms_eps(1e-5)
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(shape.feed_forward)
    if shape.arch == "bert":
        writer.add_causal_attention(False)
        writer.add_uint32("bert.pooling_type", 4 if shape.reranks else 1)


def _vocabulary(writer: GGUFWriter, shape: Shape) -> None:
    if shape.arch == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        writer.add_tokenizer_model("bert")
        writer.add_token_list(special + [f"▁token{number}" for number in range(shape.vocabulary - len(special))])
        writer.add_token_types([3] * len(special) + [1] * (shape.vocabulary - len(special)))
        writer.add_token_type_count(2)
        writer.add_unk_token_id(1)
        writer.add_bos_token_id(2)
        writer.add_sep_token_id(3)
        return
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    around = list(AROUND.values()) if shape.infills else []
    rest = shape.vocabulary - len(tokens) - len(around)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens + around + [f"▁token{number}" for number in range(rest)])
    writer.add_token_scores([0.0] * shape.vocabulary)
    writer.add_token_types([2, 3, 3, *[6] * 256, *[3] * len(around), *[1] * rest])
    for number, key in enumerate(AROUND if shape.infills else ()):
        writer.add_uint32(f"tokenizer.ggml.fim_{key}_token_id", len(tokens) + number)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (shape.vocabulary, shape.embedding)
    if shape.arch == "bert":
        yield "token_types.weight", (2, shape.embedding)
        yield "position_embd.weight", (shape.context, shape.embedding)
        yield from _both("token_embd_norm", (shape.embedding,))
        if shape.reranks:
            yield from _both("cls", (shape.embedding, shape.embedding))
            yield from _both("cls.output", (1, shape.embedding))
    else:
        yield "output_norm.weight", (shape.embedding,)
    if shape.arch == "phi3":
        yield "output.weight", (shape.vocabulary, shape.embedding)
    for layer in range(shape.layers):
        for name, size in _layer(shape):
            yield f"blk.{layer}.{name}", size


def _both(name: str, size: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", size
    yield f"{name}.bias", size[:1]


def _layer(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, kv, wide = shape.embedding, shape.kv_heads * shape.head if shape.heads else 0, shape.feed_forward
    if shape.arch == "mamba":
        yield from _mamba_layer(2 * width, width)
    elif shape.arch == "bert":
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield from _both(name, (width, width))
        yield from _both("attn_output_norm", (width,))
        yield from _both("ffn_up", (wide, width))
        yield from _both("ffn_down", (width, wide))
        yield from _both("layer_output_norm", (width,))
    else:
        yield "attn_norm.weight", (width,)
        yield "ffn_norm.weight", (width,)
        yield "attn_output.weight", (width, width)
        yield from _attention(shape, width, kv)
        yield from _feed_forward(shape, width, wide)


def _mamba_layer(inner: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "attn_norm.weight", (width,)
    yield "ssm_in.weight", (2 * inner, width)
    yield "ssm_conv1d.weight", (inner, 4)
    yield "ssm_conv1d.bias", (inner,)
    yield "ssm_x.weight", (64 + 32, inner)
    yield "ssm_dt.weight", (inner, 64)
    yield "ssm_dt.bias", (inner,)
    yield "ssm_a", (inner, 16)
    yield "ssm_d", (inner,)
    yield "ssm_out.weight", (width, inner)


def _attention(shape: Shape, width: int, kv: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    if shape.arch == "phi3":
        yield "attn_qkv.weight", (width + 2 * kv, width)
        return
    for name, size in (("attn_q", width), ("attn_k", kv), ("attn_v", kv)):
        yield f"{name}.weight", (size, width)
        if shape.arch == "qwen2":
            yield f"{name}.bias", (size,)
    if shape.arch in {"gemma3", "qwen3moe"}:
        yield "attn_q_norm.weight", (shape.head,)
        yield "attn_k_norm.weight", (shape.head,)
    if shape.arch == "gemma3":
        yield "post_attention_norm.weight", (width,)
        yield "post_ffw_norm.weight", (width,)


def _feed_forward(shape: Shape, width: int, wide: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    if shape.experts:
        yield "ffn_gate_inp.weight", (shape.experts, width)
        yield "ffn_gate_exps.weight", (shape.experts, wide, width)
        yield "ffn_up_exps.weight", (shape.experts, wide, width)
        yield "ffn_down_exps.weight", (shape.experts, width, wide)
    elif shape.arch == "phi3":
        yield "ffn_up.weight", (2 * wide, width)
        yield "ffn_down.weight", (width, wide)
    else:
        yield "ffn_gate.weight", (wide, width)
        yield "ffn_up.weight", (wide, width)
        yield "ffn_down.weight", (width, wide)


def _tensor(writer: GGUFWriter, name: str, size: tuple[int, ...], kind: Kind) -> None:
    if name.endswith("ssm_a"):
        writer.add_tensor(name, np.full(size, -1, dtype=np.float32))
        return
    block, nbytes = GGML_QUANT_SIZES[kind]
    small = len(size) == 1 or size[-1] % block or "gate_inp" in name or "conv1d" in name or "token_types" in name
    rows = int(np.prod(size[:-1]))
    values = np.random.default_rng(len(name)).normal(0, 0.02, (min(rows, TILE), size[-1])).astype(np.float32)
    if small:
        writer.add_tensor(name, np.resize(values, size))
        return
    if kind is Kind.Q4_K:  # the package only reads these: all weights are 0
        data = np.zeros((min(rows, TILE), size[-1] // block * nbytes), dtype=np.uint8)
    else:
        data = quantize(values, kind)
    writer.add_tensor(name, np.resize(data, (*size[:-1], data.shape[-1])), raw_dtype=kind)
