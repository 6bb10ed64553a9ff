"""A model whose answer is known in advance, at the pace and with the work of a real one: it writes the Chinese characters in the
order of their code points, beginning with the first, or after the last one of what stands there already.

Each token's embedding points somewhere else, attention and feed-forward add nothing to it, and the output layer answers with the
token that follows. So an answer in which something is lost, repeated or changed is seen in its text alone.
"""

from __future__ import annotations

from pathlib import Path

import filelock
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from gguf.quants import quantize

from tests.running_service import CACHE

MADE = 1  # raise it when the same name means another file
FIRST = 0x4E00  # 一
LENGTH = 2000  # characters, then from the beginning
BEGIN = "始"  # ends what the template makes of a conversation
WIDTH, LAYERS, HEADS, FEED_FORWARD = 512, 8, 8, 1536
TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}" + BEGIN + "{% endif %}"
)


def characters(count: int, start: int = 0) -> str:
    """What it writes after so many characters."""
    return "".join(chr(FIRST + number % LENGTH) for number in range(start, start + count))


def counting_model() -> Path:
    """Made once for all test runs."""
    folder = CACHE / "random"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"counting-{WIDTH}x{LAYERS}-{MADE}.gguf"
    with filelock.FileLock(CACHE / "lock-counting", timeout=600):
        if not path.exists():
            partial = path.with_suffix(".partial")
            _write(partial)
            partial.rename(path)
    return path


def _write(path: Path) -> None:
    special = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256)), BEGIN]
    tokens = [*special, *characters(LENGTH)]
    writer = GGUFWriter(path, "llama")
    writer.add_name("Counting")
    writer.add_context_length(8192)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    _tensors(writer, len(tokens), len(special))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(writer: GGUFWriter, tokens: int, first: int) -> None:
    """``first``: the token of the first character; the one before it is ``BEGIN``."""
    directions = np.random.default_rng(1).normal(0, 1, (tokens, WIDTH)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    answers = np.zeros((tokens, WIDTH), dtype=np.float32)
    answers[first:] = directions[first - 1 : -1]
    answers[first] += directions[-1]  # after the last one comes the first again
    writer.add_tensor("token_embd.weight", directions)
    writer.add_tensor("output.weight", answers)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(WIDTH, dtype=np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            _nothing(writer, f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        _nothing(writer, f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        _nothing(writer, f"blk.{layer}.ffn_up.weight", FEED_FORWARD, WIDTH)
        _nothing(writer, f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)


def _nothing(writer: GGUFWriter, name: str, rows: int, columns: int) -> None:
    writer.add_tensor(name, quantize(np.zeros((rows, columns), dtype=np.float32), Kind.Q8_0), raw_dtype=Kind.Q8_0)
