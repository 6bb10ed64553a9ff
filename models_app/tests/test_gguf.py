"""The header check: right facts from whole files, one clear reason for all others, quickly and in little memory."""

import contextlib
import struct
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


# -- whatever is in the file -------------------------------------------------------------------------------------------
KEYS = ("general.architecture", "general.name", "general.file_type", "general.alignment", "tokenizer.ggml.tokens")
NUMBERS = ("context_length", "block_count", "embedding_length", "attention.head_count", "attention.key_length")
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def value_of(kind: int):
    """A value as it stands in the file, behind its type."""
    if kind == 8:
        return st.sampled_from([b"", b"llama", b"4096", b"\xff\x00"]).map(text)
    if kind == 9:
        lists = st.sampled_from(sorted(FORMATS)).flatmap(
            lambda of: st.tuples(st.just(of), st.lists(value_of(of), max_size=3))
        )
        return lists.map(lambda found: struct.pack("<IQ", found[0], len(found[1])) + b"".join(found[1]))
    size = struct.calcsize("<" + FORMATS[kind])
    return st.one_of(st.binary(min_size=size, max_size=size), st.sampled_from([b"\xff" * size, b"\0" * size]))


PAIRS = st.tuples(
    st.sampled_from([*KEYS, *(f"llama.{name}" for name in NUMBERS)]),
    st.sampled_from([*FORMATS, 8, 9]).flatmap(
        lambda kind: value_of(kind).map(lambda value: struct.pack("<I", kind) + value)
    ),
)


@given(pairs=st.lists(PAIRS, max_size=8), tail=st.binary(max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_of_any_kind_are_facts_or_damage(tmp_path, pairs, tail):
    """A number where a text is expected, a list, an infinity: a file that comes from anywhere is refused or read, no more."""
    path = tmp_path / "a.gguf"
    keys = [("general.architecture", struct.pack("<I", 8) + text(b"llama")), *pairs]
    body = b"".join(text(name.encode()) + value for name, value in keys)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + body + b"\0" * 64 + tail)
    with contextlib.suppress(GgufError):
        facts = read_facts(path)
        assert min(facts.context_length, facts.layers, facts.heads, facts.vocabulary) >= 0


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
