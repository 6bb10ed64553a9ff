"""Speaking to a replica's llama-server over HTTP. Nothing here knows who asks or what it costs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from typing import Any

import aiohttp
from django.conf import settings
from django.utils.translation import gettext_lazy as _
from yarl import URL

from gateway import errors
from gateway.errors import GatewayError
from gateway.usage import EVENT_END
from models_app import health
from models_app.selectors import ReplicaView

logger = logging.getLogger(__name__)

# llama-server closes a connection that idles for 5 s: ours are dropped before, so that no request meets a closing one.
KEEP_ALIVE_SECONDS = 3.0
# A server that closes a connection at once may only have been tired of keeping it open; so may be some more that were kept.
STALE_SECONDS = 1.0
STALE_TRIES = 4
METRICS_SECONDS = 5.0
ERROR_BODY_BYTES = 64 * 1024
LARGE_BODY_BYTES = 512 * 1024
READ_BUFFER_BYTES = 256 * 1024
# In the events of a stream. Their quotes would be escaped in an answer's text.
TOLD_ERROR, ERROR_EVENT = b'"error":{', b"event: error"
# How an event may begin. An answer is taken for one when its first event is there, or so many bytes of it.
EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
LONGEST_FIRST_EVENT = 1024 * 1024
PARSED_BYTES = 16 * 1024  # of longer answers in one piece only the ends are looked at
BEGUN_MESSAGE = re.compile(rb'"message"\s*:\s*"([^"\\]{1,500})')
# llama-server says 500 to some requests whose form is wrong. Asking another replica, or again, would be in vain.
CLIENTS_FAULT = re.compile(
    r"^(Failed to parse |Unknown |Invalid |Unsupported |Missing |Cannot |vector::_M_)"
    r"|\[json\.exception|not supported|Unexpected empty grammar stack"
)
TOO_LONG = re.compile(r"^(?:input|request) \((\d+) tokens\) [^(]*\([^()\d]*(\d+)")
# Which field it speaks of, by the ways it has to begin.
FIELD = re.compile(
    r"""^(?:Field\ |Expected\ )?['"](?P<quoted>[a-z_][\w.]*)['"]\ ?(?::|must|is\ required|element|to)
    |^(?:Failed\ to\ parse|Invalid)\ (?P<parsed>messages|tools|tool_choice)\b
    |^(?P<begins>response_format|top_logprobs|logprobs)\b""",
    re.VERBOSE,
)


class ReplicaFailed(Exception):
    """Before the first byte of an answer. ``unreachable``: it took no connection, so nobody else should try either."""

    def __init__(self, reason: str, *, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


_sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
_urls: dict[tuple[str, str], URL] = {}


def session() -> aiohttp.ClientSession:
    """The running loop's session. It lives as long as the process: servers without lifespan events end without telling."""
    loop = asyncio.get_running_loop()
    found = _sessions.get(loop)
    if found is None or found.closed:
        for closed in [other for other in _sessions if other.is_closed()]:
            del _sessions[closed]
        found = _sessions[loop] = _new_session()
    return found


async def close() -> None:
    """The running loop's session, at the end of its process."""
    found = _sessions.pop(asyncio.get_running_loop(), None)
    if found is not None:
        await found.close()


def _new_session() -> aiohttp.ClientSession:
    connect = settings.CONNECT_SECONDS
    timeout = aiohttp.ClientTimeout(
        total=None, connect=connect, sock_connect=connect, sock_read=settings.FIRST_BYTE_SECONDS
    )
    return aiohttp.ClientSession(
        # How many connections there may be is decided by slots, not here.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        read_bufsize=READ_BUFFER_BYTES,
    )


def _url(base: str, path: str) -> URL:
    key = (base, path)
    url = _urls.get(key)
    if url is None:
        if len(_urls) > 10_000:
            _urls.clear()
        url = _urls[key] = URL(base.rstrip("/") + path, encoded=True)
    return url


async def _post(replica: ReplicaView, path: str, body: bytes) -> aiohttp.ClientResponse:
    headers = {"Authorization": f"Bearer {replica.api_key}", "Content-Type": "application/json"}
    data: Any = body if len(body) < LARGE_BODY_BYTES else io.BytesIO(body)
    return await session().post(_url(replica.base_url, path), data=data, headers=headers, allow_redirects=False)


async def _post_by_a_living_connection(replica: ReplicaView, path: str, body: bytes) -> aiohttp.ClientResponse:
    loop = asyncio.get_running_loop()
    tries = 0
    while True:
        began = loop.time()
        try:
            return await _post(replica, path, body)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError, BrokenPipeError):
            # ClientOSError: it was closed in the middle of writing, or between taking it and writing.
            tries += 1
            if tries == STALE_TRIES or loop.time() - began > STALE_SECONDS:
                raise


async def open_answer(replica: ReplicaView, path: str, body: bytes) -> aiohttp.ClientResponse:
    """The head of an answer. Raises ReplicaFailed, or GatewayError when the request is at fault."""
    try:
        response = await _post_by_a_living_connection(replica, path, body)
    except aiohttp.ClientConnectorError as error:
        raise ReplicaFailed(str(error), unreachable=True) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ReplicaFailed(repr(error)) from error
    if response.status == 200:
        return response
    raise await _error_of(response)


async def first_event(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of a stream, with one whole event at least. Raises ReplicaFailed when it is none."""
    begun = b""
    while EVENT_END not in begun and len(begun) < LONGEST_FIRST_EVENT:
        chunk = await response.content.readany()
        if not chunk:
            raise ReplicaFailed("a stream without an event")
        begun += chunk
        if not any(begun.startswith(field[: len(begun)]) for field in EVENT_FIELDS):
            raise ReplicaFailed("no stream of events")
    return begun


async def whole_answer(response: aiohttp.ClientResponse) -> bytes:
    """One in one piece. Raises ReplicaFailed when it is no JSON, as far as can be told in no time."""
    body = await response.read()
    ends = body[:64].lstrip()[:1] + body[-64:].rstrip()[-1:]
    if ends not in {b"{}", b"[]"} or (len(body) <= PARSED_BYTES and not _is_json(body)):
        raise ReplicaFailed("an answer that is no JSON")
    return body


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


async def _error_of(response: aiohttp.ClientResponse) -> GatewayError | ReplicaFailed:
    try:
        raw = await response.content.read(ERROR_BODY_BYTES)
    except (aiohttp.ClientError, TimeoutError, OSError):
        raw = b""
    finally:
        response.close()
    return translate_error(response.status, raw)


def translate_error(status: int, raw: bytes) -> GatewayError | ReplicaFailed:
    """llama-server's error in our words. What it says about a request's form is passed on: it names the field."""
    try:
        told = json.loads(raw)["error"]
        kind, message = str(told.get("type", "")), str(told.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        # It may quote the whole request, of which only the beginning was read.
        begun = BEGUN_MESSAGE.search(raw)
        told, kind, message = {}, "", begun[1].decode("utf-8", "replace") if begun else ""
    if kind == "exceed_context_size_error":
        prompt, context = (told.get(name) for name in ("n_prompt_tokens", "n_ctx"))
        return errors.context_length_exceeded(
            prompt if isinstance(prompt, int) else 0, context if isinstance(context, int) else 0
        )
    if too_long := TOO_LONG.match(message):
        return errors.context_length_exceeded(int(too_long[1]), int(too_long[2]))
    if status == 501:
        return errors.not_supported("%(reason)s", reason=_harmless(message) or "not supported")
    if status in {400, 413, 422} or (status == 500 and CLIENTS_FAULT.search(message)):
        reason = _harmless(message) or _("the model's server refuses this request")
        return errors.invalid("%(reason)s", _field_of(message), reason=reason)
    # 503: it loads its model; 401: another engine than the one we know listens there now. Neither helps anybody else.
    return ReplicaFailed(f"{status} {kind}", unreachable=status in {401, 503})


def _field_of(message: str) -> str | None:
    found = FIELD.match(message)
    return next(filter(None, found.groups()), None) if found else None


def error_told(event: bytes) -> GatewayError | ReplicaFailed | None:
    """What an event of a stream says of a failure; None when it says something else."""
    if TOLD_ERROR not in event and not event.startswith(ERROR_EVENT):
        return None
    data = event.partition(b"data:")[2]
    try:
        status = int(json.loads(data)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        status = 500
    return translate_error(status, data)


def _harmless(message: str) -> str:
    """One line, of bounded length."""
    return message.splitlines()[0][:500] if message.strip() else message


def expect_bytes_soon(response: aiohttp.ClientResponse) -> None:
    """Once an answer flows, silence means something else than a long prompt."""
    connection = response.connection
    if connection is not None and connection.protocol is not None:
        connection.protocol.read_timeout = settings.SILENCE_SECONDS
        connection.protocol.start_timeout()  # the one that runs is for the first byte


async def requests_under_way(replica: ReplicaView) -> int | None:
    """That it works on or keeps waiting; None when it does not say. Raises TimeoutError: it answers between two batches."""
    async with asyncio.timeout(METRICS_SECONDS):
        return await health.requests_under_way(session(), replica.base_url, replica.api_key)


async def ask(replica: ReplicaView, path: str, body: bytes, seconds: float) -> dict[str, Any] | None:
    """A small question answered with JSON; None when the engine has no answer to it. Raises ReplicaFailed."""
    try:
        async with asyncio.timeout(seconds):
            response = await open_answer(replica, path, body)
            answer = json.loads(await response.read())
    except (GatewayError, ValueError) as error:
        logger.debug("%s/%s has no answer to %s: %s", replica.model, replica.number, path, error)
        return None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ReplicaFailed(repr(error)) from error
    return answer if isinstance(answer, dict) else None
