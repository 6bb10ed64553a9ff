"""The header check: right facts from whole files, one clear reason for all others, quickly and in little memory."""

import struct
import time
import tracemalloc

import pytest

from models_app.gguf import GgufError, read_facts
from models_app.tests.gguf_files import make_gguf


def reason_of(path) -> tuple[str, dict]:
    with pytest.raises(GgufError) as caught:
        read_facts(path)
    return caught.value.code, caught.value.params


def test_facts_of_a_whole_file(tmp_path):
    path = make_gguf(tmp_path / "a.gguf", context=2048, layers=3, vocabulary=500)
    facts = read_facts(path)
    assert (facts.architecture, facts.name, facts.quantization) == ("llama", "Test model", "F16")
    assert (facts.context_length, facts.layers, facts.vocabulary) == (2048, 3, 500)
    assert (facts.heads, facts.kv_heads, facts.key_length, facts.value_length) == (4, 2, 16, 16)
    assert facts.parameters == 3 * 64 * 32
    assert facts.size == path.stat().st_size
    assert not facts.chat_template
    assert not facts.pooling


@pytest.mark.parametrize("kept", [1 / 3, 0.9, 0.999])
def test_cut_short_says_how_much_is_there(tmp_path, kept):
    path = make_gguf(tmp_path / "a.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    code, params = reason_of(path)
    assert code == "gguf_cut_short"
    assert params["size"] == path.stat().st_size < params["needed"] <= len(whole)


def test_not_a_gguf_at_all(tmp_path):
    path = tmp_path / "a.gguf"
    for content in (b"", b"GG", b"<html>404</html>", b"PK\x03\x04" + b"\0" * 100):
        path.write_bytes(content)
        assert reason_of(path)[0] == "gguf_not_one"


def test_other_versions_are_named(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 9, 0, 0))
    assert reason_of(path) == ("gguf_version", {"version": 9})


@pytest.mark.parametrize(
    "rest",
    [
        struct.pack("<QQ", 2**63, 0),  # tensors without end
        struct.pack("<QQ", 0, 2**40),  # keys without end
        struct.pack("<QQQ", 0, 1, 2**50),  # a key's name
        struct.pack("<QQQ1sIIQ", 0, 1, 1, b"a", 9, 4, 2**60),  # an array
        struct.pack("<QQQ1sI", 0, 1, 1, b"a", 77),  # a type nobody knows
        struct.pack("<QQQ1s", 0, 1, 1, b"a") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 50,  # nested
        struct.pack("<QQQ1sI", 1, 0, 1, b"a", 4_000_000_000),  # a shape
    ],
)
def test_absurd_numbers_are_damage_and_cost_nothing(tmp_path, rest):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + rest + b"\0" * 64)
    tracemalloc.start()
    assert reason_of(path)[0] == "gguf_damaged"
    assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    tracemalloc.stop()


def test_a_missing_part_is_named(tmp_path):
    first = make_gguf(tmp_path / "big-00001-of-00002.gguf")
    assert reason_of(first) == ("gguf_part_missing", {"part": "big-00002-of-00002.gguf"})
    second = make_gguf(tmp_path / "big-00002-of-00002.gguf")
    assert read_facts(first).size == first.stat().st_size + second.stat().st_size


def test_a_large_vocabulary_takes_milliseconds(tmp_path):
    path = make_gguf(tmp_path / "a.gguf", vocabulary=150_000)
    begin = time.process_time()
    assert read_facts(path).vocabulary == 150_000
    assert time.process_time() - begin < 1
