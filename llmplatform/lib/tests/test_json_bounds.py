"""Bodies with too much structure are recognised before they are parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmplatform.lib import json_bounds
from llmplatform.lib.json_bounds import DEEPEST, MOST_PARTS, MOST_TEXTS, is_too_complex


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((depth_of(part) for part in value.values()), default=0)
    return 1 + max((depth_of(part) for part in value), default=0) if isinstance(value, list) else 0


def lists(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def objects(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("nested", [lists, objects])
def test_depth(nested: Any) -> None:
    assert not is_too_complex(nested(DEEPEST))
    assert is_too_complex(nested(DEEPEST + 1))
    assert is_too_complex(b'{"x": [1, ' + nested(DEEPEST + 1) + b"]}")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1000,
        "]" * 1000,
        "{:}" * 1000,
        '"[' * 1000,
        "\\" * 1001,
        '\\"' * 999 + "[",
        "a: b, " * 200_000,
        "[]" * 200_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_stands_in_a_text_does_not_count(text: str) -> None:
    assert not is_too_complex(json.dumps({"messages": [{"content": text, text: 1}]}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * MOST_PARTS + b"[]]",
        b"[" + b"{}," * MOST_PARTS + b"{}]",
        b"{" + b'"":1,' * MOST_PARTS + b'"a":1}',
        b"[" + b'"",' * MOST_TEXTS + b'""]',
    ],
    ids=lambda body: repr(body[:8]),
)
def test_too_many_parts(body: bytes) -> None:
    assert is_too_complex(body)


def test_numbers_and_long_texts_are_not_parts() -> None:
    assert not is_too_complex(b"[" + b"1," * 3_000_000 + b"1]")
    assert not is_too_complex(b'["' + b"x" * 9_000_000 + b'"]')


@given(
    value=st.recursive(
        st.none() | st.text(alphabet='[]{}:"\\ a\n'),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}:"\\a', max_size=4), inner, max_size=3)
        ),
        max_leaves=20,
    ),
    ascii_only=st.booleans(),
)
def test_exactly_what_is_deeper_is_refused(value: Any, ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_bounds, "DEEPEST", 3)
        assert is_too_complex(raw) == (depth_of(value) > 3)


@pytest.mark.parametrize("body", [b"[" * 100_000, b"]" * 100_000, b'"', b'{"', b"\\", b"", b"\xff" * 100])
def test_what_is_no_json_does_no_harm(body: bytes) -> None:
    assert is_too_complex(body) is False
