"""Our reader against the format's own package."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, LlamaFileType
from gguf.quants import quantize

from models_app.gguf import GgufFacts, read_facts
from models_app.gguf_reader import read_header
from models_app.gguf_tables import BLOCKS, FILE_TYPES, REMOVED
from tests.running_service import put_starter_model

KINDS = [gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")]


def test_types_and_their_blocks():
    known = {kind.value: (kind.name, *GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    assert {kind: block for kind, block in BLOCKS.items() if kind in known} == known
    assert not REMOVED & set(known)
    names = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}
    assert {number: name.removesuffix("_MOE") for number, name in names.items() if number < 1024} == FILE_TYPES


def same(path: Path) -> GgufFacts:
    """Our facts, after each tensor was found where the package finds it."""
    theirs, header, facts = gguf.GGUFReader(path), read_header(path), read_facts(path)
    places = {tensor.name: (header.data + tensor.offset, tensor.nbytes, tensor.values) for tensor in header.tensors}
    assert places == {
        tensor.name: (tensor.data_offset, int(tensor.n_bytes), int(tensor.n_elements)) for tensor in theirs.tensors
    }
    arch = facts.architecture

    def number(key: str) -> int:
        field = theirs.get_field(f"{arch}.{key}")
        return int(field.contents()) if field else 0

    assert theirs.get_field("general.architecture").contents() == arch
    assert (facts.layers, facts.embedding_length) == (number("block_count"), number("embedding_length"))
    assert (facts.heads, facts.context_length) == (number("attention.head_count"), number("context_length"))
    tokens = theirs.get_field("tokenizer.ggml.tokens")
    assert facts.vocabulary == (len(tokens.data) if tokens else 0)
    assert facts.chat_template == (theirs.get_field("tokenizer.chat_template") is not None)
    return facts


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3", "bert"])
def test_small_files(tmp_path, architecture, kind):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(2048)
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv([2, 1])
    writer.add_chat_template("{{ messages }}")
    writer.add_token_list(["a", "字", ""])
    for layer, rows in enumerate((3, 5)):
        data = quantize(np.ones((rows, 64), dtype=np.float32), kind)
        writer.add_tensor(f"blk.{layer}.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    facts = same(path)
    assert facts.stored == ((kind.name, sum(size for _name, size in facts.stored)),)
    assert facts.quantization == kind.name
    if architecture in {"llama", "qwen2"}:
        assert facts.kv_values == (2 + 1) * 2 * 16


def test_the_starter_model(tmp_path):
    put_starter_model(tmp_path)
    facts = same(next(tmp_path.glob("*.gguf")))
    assert (facts.quantization, facts.vocabulary, facts.tokenizer) == ("Q4_1", 49_152, "gpt2")
    assert facts.kv_values == 30 * 3 * (64 + 64)
