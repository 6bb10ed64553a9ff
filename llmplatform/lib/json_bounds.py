"""How much structure a JSON text holds, found out before it is parsed.

Parsed, ``[[],[],[],…`` takes thirty times its bytes: 10 MB of it would take 300. Text and numbers do not grow like that, so only
containers, keys and strings are counted.
"""

from __future__ import annotations

DEEPEST = 64
MOST_PARTS = 100_000  # objects, lists and keys together: a chat of 10,000 messages has 40,000
MOST_TEXTS = 400_000  # keys among them; a list of words

_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}:"'))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def is_too_complex(raw: bytes) -> bool:
    """Whether it is nested too deeply or has too many parts. Says nothing about whether it is JSON at all.

    Everything here runs at the speed of memory: 10 MB take about 20 ms.
    """
    skeleton = _without_escapes(raw).translate(None, _NO_STRUCTURE)
    if skeleton.count(b'"') > 2 * MOST_TEXTS:
        return True
    outside = b"".join(skeleton.split(b'"')[::2])  # what stands between two quotes is text
    if outside.count(b"[") + outside.count(b"{") + outside.count(b":") > MOST_PARTS:
        return True
    return _is_deep(outside.translate(_ONE_KIND, b":"))


def _without_escapes(raw: bytes) -> bytes:
    """Every quote that is left begins or ends a text."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw


def _is_deep(brackets: bytes) -> bool:
    """Takes away the innermost level again and again."""
    for _level in range(DEEPEST):
        outer = brackets.replace(b"[]", b"")
        if len(outer) == len(brackets):  # nothing is left, or it is no JSON
            return False
        brackets = outer
    return bool(brackets)
