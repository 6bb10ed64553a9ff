"""Requests to the single sign-on provider: the only ones this app makes to another machine.

They go where the administrator's ``OIDC_ISSUER`` and its own description say, by TLS (plain HTTP only when the provider is on
this very machine), follow no redirect, take ten seconds and half a megabyte at most, and never pass on what was answered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from django.conf import settings

from llmplatform.lib.networks import is_loopback

TIMEOUT = httpx.Timeout(connect=5.0, read=5.0, write=5.0, pool=5.0)
WHOLE_SECONDS = 10.0
LARGEST_ANSWER = 512 * 1024


class BadAnswer(Exception):
    """No answer, or not one that can be used. The text is for the log."""


class Session:
    """The HTTP session that Authlib's client works with, and a few more words of it. Close it after each login."""

    def __init__(self) -> None:
        # Proxies of the environment are for the world outside.
        outside = not is_loopback(settings.OIDC_ISSUER)
        self._client = httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=outside)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._client.close()

    def post(self, url: str, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> httpx.Response:
        """``auth`` is Authlib's: it adds the client's id and secret."""
        url, signed, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        return self._exchange(httpx.Request("POST", url, headers=signed, content=body.encode()))

    def get_json(self, url: str, bearer: str = "") -> dict[str, Any]:
        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {bearer}"} if bearer else {})}
        answer = self._exchange(httpx.Request("GET", url, headers=headers))
        if answer.status_code != httpx.codes.OK:
            raise BadAnswer(f"{_place(url)} answered {answer.status_code}")
        try:
            found = answer.json()
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"{_place(url)} did not answer with JSON") from error
        if not isinstance(found, dict):
            raise BadAnswer(f"{_place(url)} did not answer with an object")
        return found

    def _exchange(self, request: httpx.Request) -> httpx.Response:
        check_address(str(request.url))
        request.headers["Accept-Encoding"] = "identity"  # so that what is counted is what is kept
        started = time.monotonic()
        try:
            answer = self._client.send(request, stream=True)
            try:
                content = self._content(answer, started)
            finally:
                answer.close()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BadAnswer(f"{_place(str(request.url))}: {error or type(error).__name__}") from error
        return httpx.Response(answer.status_code, content=content, request=request)

    def _content(self, answer: httpx.Response, started: float) -> bytes:
        content = bytearray()
        for chunk in answer.iter_raw():
            content += chunk
            if len(content) > LARGEST_ANSWER:
                raise BadAnswer(f"{_place(str(answer.url))} sends more than {LARGEST_ANSWER} bytes")
            if time.monotonic() - started > WHOLE_SECONDS:
                raise BadAnswer(f"{_place(str(answer.url))} takes longer than {WHOLE_SECONDS:.0f} seconds")
        return bytes(content)


def check_address(url: object) -> str:
    """Raises BadAnswer for an address that is not asked: neither https, nor http where the issuer itself is on this machine."""
    parts = _split(url)
    if parts is None or not parts.hostname or parts.scheme not in {"https", "http"}:
        raise BadAnswer(f"{url!r} is no address")
    if parts.scheme == "http" and not (is_loopback(settings.OIDC_ISSUER) and is_loopback(str(url))):
        raise BadAnswer(f"{_place(str(url))} is not https")
    return str(url)


def _split(url: object) -> Any:
    try:
        return urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        return None


def _place(url: str) -> str:
    """An address without its query, which may hold what no log should."""
    return url.partition("?")[0]
