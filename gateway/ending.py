"""Whether this web process is about to end.

Then requests are cancelled as if their clients had left. Whoever cancels them says so first: the fault is ours, nobody pays for
an answer that never began, and clients hear that they may try again.
"""

from __future__ import annotations

_begun = False


def begin() -> None:
    """For good: the process ends in some seconds."""
    global _begun
    _begun = True


def has_begun() -> bool:
    return _begun
