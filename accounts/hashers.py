"""Argon2, a few at a time: each hash takes 100 MB for a moment, and a thousand wrong logins at once must not take it all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.hashers import Argon2PasswordHasher as DjangoArgon2PasswordHasher
from django.utils.translation import gettext as _

from llmplatform.lib.errors import ApiError

AT_ONCE = 4
WAIT_SECONDS = 20

_turns = threading.BoundedSemaphore(AT_ONCE)


class Argon2PasswordHasher(DjangoArgon2PasswordHasher):
    def encode(self, password: str, salt: str) -> str:
        with _turn():
            return super().encode(password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        with _turn():
            return super().verify(password, encoded)


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=WAIT_SECONDS):
        raise ApiError("overloaded", _("Too many people log in at once; try again in a moment."), 503, retry_after=5)
    try:
        yield
    finally:
        _turns.release()
