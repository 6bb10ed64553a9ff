"""Small GGUF files for tests, made by the format's own package."""

from __future__ import annotations

from pathlib import Path

import numpy
from gguf import GGUFWriter


def make_gguf(path: Path, *, context: int = 4096, layers: int = 2, vocabulary: int = 100, **keys: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    writer.add_name("Test model")
    writer.add_context_length(context)
    writer.add_block_count(layers)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_file_type(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{number}" for number in range(vocabulary)])
    writer.add_token_scores([0.5] * vocabulary)
    for name, value in keys.items():
        writer.add_uint32(name, value)
    for layer in range(layers):
        writer.add_tensor(f"blk.{layer}.weight", numpy.ones((64, 32), dtype=numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
