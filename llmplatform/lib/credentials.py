"""The one reader of credentials: what a request carries to say who it comes from, for people, keys and machines, REST and
inference alike.

``Authorization: Bearer …`` and ``x-api-key`` mean the same. Whoever sends two different ones leaves open who they are, and is
refused; so is a header beside the session cookie of somebody else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.http import HttpRequest

AUTHORIZATION = b"authorization"
API_KEY = b"x-api-key"
LONGEST_TOKEN = 4096  # ours are about 300 characters; nothing longer is worth a signature check


class NotAuthenticated(Exception):
    """Nobody we know, or somebody who leaves open who they are."""


def token_in(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The one token in raw headers (names in small letters), or None without any. Raises NotAuthenticated."""
    found = [(name, value) for name, value in headers if name in (AUTHORIZATION, API_KEY)]
    return _one([_token(name, value) for name, value in found]) if found else None


def token_of_request(request: HttpRequest) -> str | None:
    """The same for a Django request, which has joined headers of one name by commas."""
    named = ((AUTHORIZATION, "HTTP_AUTHORIZATION"), (API_KEY, "HTTP_X_API_KEY"))
    return token_in(
        (name, request.META[key].encode("latin-1", "replace")) for name, key in named if key in request.META
    )


def _token(name: bytes, value: bytes) -> str:
    if len(value) > LONGEST_TOKEN:
        raise NotAuthenticated
    if name == AUTHORIZATION:
        scheme, _space, value = value.strip().partition(b" ")
        if scheme.lower() != b"bearer":
            raise NotAuthenticated
    try:
        token = value.strip().decode("ascii")
    except UnicodeDecodeError as error:
        raise NotAuthenticated from error
    if not is_one_word(token):
        raise NotAuthenticated
    return token


def is_one_word(token: str) -> bool:
    """Of printable characters, as every token is; two headers that were joined are not."""
    return token.isascii() and token.isprintable() and " " not in token and "," not in token


def _one(tokens: Sequence[str]) -> str:
    if len(set(tokens)) != 1 or not tokens[0]:
        raise NotAuthenticated
    return tokens[0]
