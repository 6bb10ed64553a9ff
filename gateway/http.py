"""The HTTP side of the inference path, on bare ASGI: who calls, what was sent, and sending answers.

It relies on nothing but the ASGI messages themselves (no lifespan events, no server extensions), so that Daphne, uvicorn and
granian run it alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from time import monotonic
from typing import Any

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils import translation
from django.utils.translation.trans_real import get_supported_language_variant, parse_accept_lang_header

from accounts.callers import Caller, CsrfRefused, NotAuthenticated, caller_from_bearer, caller_from_session
from gateway import errors
from gateway.errors import GatewayError, Protocol
from gateway.inference import Answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

REST_PREFIX = "/api/"


class ClientGone(Exception):
    """Nobody is there to be answered."""


class Incoming:
    """One HTTP request: its headers by name, and ways to answer it."""

    __slots__ = ("headers", "receive", "request_id", "scope", "send", "started")

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.request_id = request_id
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = False

    # -- what came -------------------------------------------------------------------------------------------------------
    def check_host(self) -> None:
        """A page elsewhere whose name is rebound to our address carries its own name here."""
        if not _host_allowed(self.headers.get(b"host", b""), tuple(settings.ALLOWED_HOSTS)):
            raise errors.wrong_host()

    async def caller(self) -> Caller:
        """By ``Authorization: Bearer``, else ``x-api-key`` (Anthropic's SDK), else, on /api/, the browser's session."""
        token = self._token()
        try:
            if token is not None:
                return await _caller_of_token(token)
            if self.scope["path"].startswith(REST_PREFIX):
                secure = self.scope.get("scheme") == "https"
                caller = await caller_from_session(self.scope["headers"], self.scope["method"], secure=secure)
                if caller is not None:
                    return caller
        except CsrfRefused:
            raise errors.permission_denied() from None
        except NotAuthenticated:
            pass
        raise errors.not_authenticated()

    def _token(self) -> str | None:
        authorization = self.headers.get(b"authorization")
        if authorization is not None:
            kind, _space, token = authorization.partition(b" ")
            return token.strip().decode("latin-1") if kind.lower() == b"bearer" else ""
        key = self.headers.get(b"x-api-key")
        return None if key is None else key.strip().decode("latin-1")

    async def body(self) -> bytes:
        """Raises GatewayError as soon as it is known to be too large; the rest is not read."""
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        length = self.headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > limit:
            raise errors.too_large(limit // 2**20)
        chunks, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise errors.too_large(limit // 2**20)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    # -- answering -------------------------------------------------------------------------------------------------------
    async def send_head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        if length is not None:
            raw.append((b"content-length", b"%d" % length))
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def send_whole(self, status: int, headers: dict[str, str], body: bytes) -> None:
        await self.send_head(status, headers, len(body))
        await self.send({"type": "http.response.body", "body": body})

    async def send_answer(self, answer: Answer) -> None:
        if answer.stream is None:
            await self.send_whole(answer.status, answer.headers, answer.body or b"")
            return
        try:
            await self.send_head(answer.status, answer.headers, None)
            send = self.send
            async for chunk in answer.stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()

    async def send_error(self, error: GatewayError, protocol: Protocol) -> None:
        headers = {**errors.as_headers(error), "x-request-id": self.request_id}
        await self.send_whole(error.status, headers, errors.as_body(error, protocol))

    def speak_its_language(self) -> None:
        """As Django chooses it from ``Accept-Language``; for this request's task, so for errors inside its stream too."""
        asked = self.headers.get(b"accept-language")
        if asked is None:  # programs rarely say
            return
        for code, _weight in parse_accept_lang_header(asked.decode("latin-1")):
            try:
                translation.activate(get_supported_language_variant(code))
            except LookupError:
                continue
            return


# A token seen a moment ago is known without checking its signature again. Adds to the seconds for which accounts.callers
# remembers a user's state; both together stay below the five within which a revocation must be seen.
_TOKEN_SECONDS = 1.0
_TOKENS_KEPT = 5000
_known_tokens: dict[str, tuple[float, Caller]] = {}


async def _caller_of_token(token: str) -> Caller:
    known = _known_tokens.get(token)
    if known is not None and monotonic() - known[0] < _TOKEN_SECONDS:
        return known[1]
    _known_tokens.pop(token, None)
    caller = await caller_from_bearer(token)
    if len(_known_tokens) >= _TOKENS_KEPT:
        _known_tokens.clear()
    _known_tokens[token] = (monotonic(), caller)
    return caller


@lru_cache(maxsize=1000)
def _host_allowed(host: bytes, allowed: tuple[str, ...]) -> bool:
    domain, _port = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, allowed)


async def while_connected(receive: Receive, work: Awaitable[None]) -> None:
    """Does ``work`` in this very task, and cancels it as soon as the client goes away. Raises ClientGone then."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - every ASGI server runs applications in tasks
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGone from None
    finally:
        watcher.cancel()
