"""Small GGUF files for tests, made by the format's own package."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy
from gguf import GGUFWriter

from models_app.gguf import GgufFacts, read_facts


def make_gguf(
    path: Path, *, context: int = 4096, layers: int = 2, vocabulary: int = 100, prefix: str = "blk", **keys: int
) -> Path:
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
        (writer.add_uint16 if name.startswith("split.") else writer.add_uint32)(name, value)
    for layer in range(layers):
        writer.add_tensor(f"{prefix}.{layer}.weight", numpy.ones((64, 32), dtype=numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def facts(folder: Path, **changes: object) -> GgufFacts:
    """Of a small file, with some of them replaced."""
    return replace(read_facts(make_gguf(folder / "facts.gguf")), **changes)


def raw_gguf(
    path: Path, keys: list[tuple[str, bytes]], tensors: list[tuple[str, tuple[int, ...], int, int]], data: bytes = b""
) -> Path:
    """A file as told, sound or not: keys with type and value, tensors as (name, sizes, type, offset), then the data."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))]
    parts += [text(name.encode()) + value for name, value in keys]
    for name, sizes, kind, offset in tensors:
        parts += [text(name.encode()), struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)]
    head = b"".join(parts)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return path


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value
