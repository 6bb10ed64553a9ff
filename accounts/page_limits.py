"""How often one address may post a form before it has to wait."""

from __future__ import annotations

from django.core.cache import cache
from django.http import HttpRequest

ATTEMPTS = 30
SECONDS = 60


def too_many_attempts(request: HttpRequest, form: str) -> bool:
    """Count this attempt; true when the address has used up its attempts at ``form`` for this minute."""
    key = f"attempts:{form}:{request.META.get('REMOTE_ADDR', '')}"
    if cache.add(key, 1, SECONDS):
        return False
    try:
        return cache.incr(key) > ATTEMPTS
    except ValueError:  # it ran out between the two calls
        return False
