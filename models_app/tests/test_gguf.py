"""The header check: right facts from whole files, one clear reason for all others, quickly and in little memory."""

import contextlib
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models_app.gguf import GgufError, read_facts
from models_app.tests.gguf_files import make_gguf, raw_gguf, text


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


def make_part(folder, number, count=2, **keys) -> Path:
    path = folder / f"big-{number:05}-of-{count:05}.gguf"
    fields = {"split.no": number - 1, "split.count": count, **keys}
    packed = [(name, struct.pack("<IH", 2, value)) for name, value in fields.items()]
    if number == 1:
        packed.append(("general.architecture", struct.pack("<I", 8) + text(b"llama")))
    return raw_gguf(path, packed, [(f"blk.{number}.weight", (8,), 0, 0)], b"\0" * 32)


def test_all_parts_count_and_each_must_be_whole(tmp_path):
    first = make_part(tmp_path, 1)
    assert reason_of(first) == ("gguf_part_missing", {"part": "big-00002-of-00002.gguf"})
    second = make_part(tmp_path, 2)
    facts = read_facts(first)
    assert (facts.size, facts.parts, facts.parameters) == (first.stat().st_size + second.stat().st_size, 2, 16)
    assert reason_of(second) == ("gguf_not_first_part", {"part": "big-00001-of-00002.gguf"})
    second.write_bytes(second.read_bytes()[:-8])
    code, params = reason_of(first)
    assert (code, params["file"]) == ("gguf_cut_short", second.name)


def test_parts_must_belong_together(tmp_path):
    first = make_part(tmp_path, 1)
    make_part(tmp_path, 2, **{"split.no": 3})
    assert reason_of(first) == ("gguf_part_strange", {"part": "big-00002-of-00002.gguf"})
    first.rename(tmp_path / "renamed.gguf")
    assert reason_of(tmp_path / "renamed.gguf") == ("gguf_part_name", {"count": 2})
    double = make_part(tmp_path, 1)
    two = tmp_path / "big-00002-of-00002.gguf"
    two.write_bytes(make_part(tmp_path / ".", 2).read_bytes().replace(b"blk.2.", b"blk.1."))
    assert reason_of(double)[0] == "gguf_twice"


# -- tensors -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tensors", "code"),
    [
        ([("a", (8,), 0, 0), ("b", (8,), 0, 32)], None),
        ([("a", (16,), 0, 0), ("b", (8,), 0, 32)], "gguf_tensor_overlap"),
        ([("b", (8,), 0, 0), ("a", (8,), 0, 0)], "gguf_tensor_overlap"),
        ([("a", (8,), 0, 4)], "gguf_tensor_place"),
        ([("a", (8,), 0, 64)], "gguf_cut_short"),
        ([("a", (8,), 0, 1 << 62)], "gguf_cut_short"),
        ([("a", (8,), 0, 0), ("a", (8,), 0, 32)], "gguf_twice"),
        ([("a", (48, 1), 2, 0)], "gguf_damaged"),  # a row of Q4_0 has blocks of 32
        ([("a", (1 << 62, 4), 0, 0)], "gguf_damaged"),
        ([("a", (1, 1, 1, 1, 1), 0, 0)], "gguf_damaged"),
        ([("a" * 64, (8,), 0, 0)], "gguf_damaged"),
        ([("a", (8,), 4, 0)], "gguf_old_type"),
        ([("a", (8,), 3_000_000_000, 0)], "gguf_damaged"),
        ([("a", (8,), 200, 0)], None),  # a type that may come
    ],
)
def test_tensors_lie_where_they_may(tmp_path, tensors, code):
    path = raw_gguf(tmp_path / "a.gguf", [], tensors, b"\0" * 64)
    if code is None:
        assert read_facts(path).parts == 1
    else:
        assert reason_of(path)[0] == code


def test_the_alignment_of_a_file_counts(tmp_path):
    keys = [("general.alignment", struct.pack("<II", 4, 8))]
    assert read_facts(raw_gguf(tmp_path / "a.gguf", keys, [("a", (8,), 0, 8)], b"\0" * 64)).parameters == 8
    for alignment in (0, 3, 1 << 30):
        keys = [("general.alignment", struct.pack("<II", 4, alignment))]
        assert reason_of(raw_gguf(tmp_path / "a.gguf", keys, [], b""))[0] == "gguf_damaged"


def test_a_key_twice(tmp_path):
    keys = [("general.name", struct.pack("<I", 8) + text(b"x"))] * 2
    code, params = reason_of(raw_gguf(tmp_path / "a.gguf", keys, []))
    assert (code, params["name"]) == ("gguf_twice", "general.name")


def test_big_endian(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 0))
    assert reason_of(path) == ("gguf_big_endian", {})


# -- kinds and layers --------------------------------------------------------------------------------------------------
def number(value: int) -> bytes:
    return struct.pack("<II", 4, value)


def words(value: str) -> bytes:
    return struct.pack("<I", 8) + text(value.encode())


@pytest.mark.parametrize(
    ("architecture", "keys", "tensors", "kind"),
    [
        ("llama", {}, [], "chat"),
        ("bert", {}, [], "embedding"),
        ("qwen3", {"qwen3.pooling_type": number(3)}, [], "embedding"),
        ("bert", {"bert.pooling_type": number(4)}, [], "rerank"),
        ("qwen3", {}, [("cls.output.weight", (8,), 0, 0)], "rerank"),
        ("clip", {}, [], "projector"),
        ("clip", {"general.type": words("mmproj")}, [], "projector"),
        ("llama", {"general.type": words("adapter")}, [], "adapter"),
        ("llama", {"general.type": words("imatrix")}, [], "other"),
        ("", {}, [], "other"),
    ],
)
def test_what_a_file_is(tmp_path, architecture, keys, tensors, kind):
    all_keys = [("general.architecture", words(architecture)), *keys.items()]
    assert read_facts(raw_gguf(tmp_path / "a.gguf", all_keys, tensors, b"\0" * 32)).kind == kind


def layered(tmp_path, architecture, **keys):
    """Six layers of 8 heads, 2 of them for keys and values, of 64 numbers; ``_`` is the point in a key."""
    named = {"block_count": 6, "embedding_length": 512, "attention.head_count": 8, "attention.head_count_kv": 2}
    named |= {name.replace("__", "."): value for name, value in keys.items()}
    packed = [("general.architecture", words(architecture))]
    for name, value in named.items():
        if isinstance(value, list):
            packed.append((f"{architecture}.{name}", struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)))
        else:
            packed.append((f"{architecture}.{name}", number(value)))
    facts = read_facts(raw_gguf(tmp_path / "a.gguf", packed, []))
    return facts.kv_values, facts.window, facts.window_values, facts.state_bytes


def test_what_each_layer_keeps(tmp_path):
    one = 2 * 128  # of one layer and token
    assert layered(tmp_path, "llama") == (6 * one, 0, 0, 0)
    assert layered(tmp_path, "bert") == (0, 0, 0, 0)
    assert layered(tmp_path, "llama", attention__key_length=96, attention__value_length=32) == (6 * one, 0, 0, 0)
    assert layered(tmp_path, "deci", attention__head_count_kv=[2, 0, 2, 4, 0, 2]) == (10 * 128, 0, 0, 0)
    assert layered(tmp_path, "gemma3", attention__sliding_window=512) == (one, 512, 5 * one, 0)
    assert layered(tmp_path, "gemma2", attention__sliding_window=512) == (3 * one, 512, 3 * one, 0)
    pattern = [1, 1, 0, 1, 1, 0]
    kept = layered(tmp_path, "new", attention__sliding_window=128, attention__sliding_window_pattern=pattern)
    assert kept == (2 * one, 128, 4 * one, 0)
    assert layered(tmp_path, "llama", attention__sliding_window=512) == (6 * one, 0, 0, 0)  # not known to use it
    compressed = {"attention__key_length": 576, "attention__key_length_mla": 192, "attention__head_count_kv": 1}
    assert layered(tmp_path, "deepseek2", **compressed) == (6 * 576, 0, 0, 0)


def test_recurrent_layers_keep_the_same_whatever_the_context(tmp_path):
    state = {"ssm__conv_kernel": 4, "ssm__inner_size": 1024, "ssm__state_size": 16, "ssm__group_count": 1}
    each = 4 * (3 * (1024 + 32) + 16 * 1024)
    assert layered(tmp_path, "mamba2", attention__head_count_kv=0, **state) == (0, 0, 0, 6 * each)
    assert layered(tmp_path, "jamba", attention__head_count_kv=[0, 0, 2, 0, 0, 2], **state) == (512, 0, 0, 4 * each)
    assert layered(tmp_path, "falcon-h1", **state) == (6 * 256, 0, 0, 6 * each)
    assert layered(tmp_path, "qwen3next", full_attention_interval=3, **state) == (2 * 256, 0, 0, 4 * each)


# -- bounds ------------------------------------------------------------------------------------------------------------
def test_a_large_vocabulary_takes_little_time_and_memory(tmp_path):
    path = make_gguf(tmp_path / "a.gguf", vocabulary=150_000)
    begin = time.process_time()
    assert read_facts(path).vocabulary == 150_000
    assert time.process_time() - begin < 0.2
    tracemalloc.start()
    read_facts(path)
    assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    tracemalloc.stop()
