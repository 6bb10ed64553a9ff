"""The HTTP side of the inference path, on bare ASGI: who calls, what was sent, and sending answers.

It relies on nothing but the ASGI messages themselves (no lifespan events, no server extensions), so that Daphne, uvicorn and
granian run it alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from time import monotonic
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError
from django.http.request import split_domain_port, validate_host
from django.utils import translation
from django.utils.translation import gettext_lazy as _
from django.utils.translation.trans_real import get_supported_language_variant, parse_accept_lang_header

from accounts.callers import (
    Caller,
    CsrfRefused,
    NotAllowed,
    NotAuthenticated,
    caller_from_bearer,
    caller_from_session,
)
from gateway import errors
from gateway.errors import GatewayError, Protocol
from gateway.exchange import Answer
from gateway.slots import Standing
from llmplatform.lib import credentials

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger(__name__)
REST_PREFIX = "/api/"
# How long a client waits for its answer to begin, in milliseconds; and what the official clients say of it, in seconds.
QUEUE_TIMEOUT = b"x-queue-timeout-ms"
SDK_TIMEOUTS = (b"x-stainless-read-timeout", b"x-stainless-timeout")
LONGEST_TIMEOUT = 2**31 - 1
TELL_AFTER = 2.0  # seconds a stream waits before its client is told so


class ClientGone(Exception):
    """Nobody is there to be answered."""


class Incoming:
    """One HTTP request: its headers by name, and ways to answer it."""

    __slots__ = (
        "arrived", "early", "headers", "receive", "request_id", "scope", "send", "standing", "started", "waits",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.request_id = request_id
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = False  # the status is sent
        self.waits = False  # and nothing but that the request waits
        self.standing: Standing | None = None  # when it joined the line
        self.early: dict[str, str] = {}  # headers of an answer that begins before there is one
        self.arrived = monotonic()

    # -- what came -------------------------------------------------------------------------------------------------------
    def check_host(self) -> None:
        """A page elsewhere whose name is rebound to our address carries its own name here."""
        if not _host_allowed(self.headers.get(b"host", b""), tuple(settings.ALLOWED_HOSTS)):
            raise errors.wrong_host()

    async def caller(self, *scopes: str) -> Caller:
        """By token or key, else, on /api/, by the browser's session. A key must have one of ``scopes``."""
        try:
            caller = await self._caller()
        except NotAllowed as error:
            raise errors.address_forbidden(str(error)) from None
        except CsrfRefused:
            raise errors.permission_denied() from None
        except NotAuthenticated:
            raise errors.not_authenticated() from None
        except DatabaseError:
            logger.exception("a caller could not be looked up", extra={"request_id": self.request_id})
            raise errors.unavailable() from None
        if not any(caller.has_scope(scope) for scope in scopes):
            raise errors.scope_missing(scopes[0])
        return caller

    async def _caller(self) -> Caller:
        token = credentials.token_in(self.scope["headers"])
        by_token = await caller_from_bearer(token, self._address()) if token is not None else None
        by_cookie = None
        if self.scope["path"].startswith(REST_PREFIX) and b"cookie" in self.headers:
            # Beside a token the cookie is only looked at: an unsafe method needs the page's own token where it is believed.
            method = self.scope["method"] if by_token is None else "GET"
            secure = self.scope.get("scheme") == "https"
            by_cookie = await caller_from_session(self.scope["headers"], method, secure=secure)
        caller = by_token or by_cookie
        if caller is None or (by_cookie is not None and by_cookie.user_id != caller.user_id):
            raise NotAuthenticated
        return caller

    def _address(self) -> str:
        client = self.scope.get("client")
        return str(client[0]) if client else ""

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

    def deadline(self, *, streams: bool) -> float | None:
        """Until when (monotonic) its client waits for the answer to begin; None: it does not say. Raises GatewayError."""
        told = self.headers.get(QUEUE_TIMEOUT)
        if told is None:
            seconds = None if streams else _sdk_timeout(self.headers)
        elif told.isdigit() and len(told) <= 10 and int(told) <= LONGEST_TIMEOUT:
            seconds = int(told) / 1000
        else:
            name = QUEUE_TIMEOUT.decode()
            template = _("“%(name)s” must be a whole number from %(low)d to %(high)d.")
            raise errors.invalid(template, name, name=name, low=0, high=LONGEST_TIMEOUT)
        return None if seconds is None else self.arrived + seconds

    # -- answering -------------------------------------------------------------------------------------------------------
    async def send_head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
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
            if not self.waits:
                await self.send_head(answer.status, answer.headers, None)
            self.waits = False
            send = self.send
            async for chunk in answer.stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()

    async def tell_waiting(self, position: int, estimate_ms: int, loading: bool) -> bool:
        """To the client of a stream, as comments, which every reader of events passes over: neither it nor a proxy takes the line
        for dead. The first one fixes the status, so whoever waits for a moment only is told nothing: False then."""
        if self.standing is None:
            self.standing = Standing(position, estimate_ms)
        if not self.started:
            if monotonic() - self.arrived < TELL_AFTER:
                return False
            headers = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
            own = {"x-request-id": self.request_id, **self.standing.headers, **self.early}
            await self.send_head(200, headers | own, None)
            self.waits = True
        what = b"loading the model" if loading else b"waiting for a slot"
        told = b": %b, position %d, about %d ms\n\n" % (what, position, estimate_ms)
        await self.send({"type": "http.response.body", "body": told, "more_body": True})
        return True

    async def send_error(self, error: GatewayError, protocol: Protocol) -> None:
        if self.waits:
            await self.send({"type": "http.response.body", "body": errors.as_event(error, protocol)})
            return
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


def _sdk_timeout(headers: dict[bytes, bytes]) -> float | None:
    """Seconds after which the official clients give up an answer in one piece that has not begun. Where a stream waits they hear
    of it, and go on listening; so it is none there."""
    for name in SDK_TIMEOUTS:
        with contextlib.suppress(KeyError, ValueError):
            told = headers[name]
            seconds = float(told) + told.isdigit()  # some cut off the fraction of the last second
            if 0 < seconds <= LONGEST_TIMEOUT / 1000:
                return seconds
    return None


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
