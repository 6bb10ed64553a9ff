"""The bytes of a streamed answer on their way to the client."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import aiohttp

from accounts.models import UsageRecord
from gateway import ending, errors, message_start, upstream
from gateway.errors import GatewayError
from gateway.upstream import ReplicaFailed
from gateway.usage import EVENT_END, PROGRESS, StreamMeter

if TYPE_CHECKING:
    from gateway.inference import Exchange

logger = logging.getLogger(__name__)
Outcome = UsageRecord.Outcome

# A comment, which llama-server sends every 30 s (newer ones every second) while it has nothing to say.
PING = b":"
UNREADABLE = (aiohttp.ClientError, TimeoutError, OSError)


def _is_content(event: bytes) -> bool:
    return bool(event) and not event.startswith(PING) and PROGRESS not in event


class AnswerStream:
    """The bytes as they come. Ends with an error event in the client's protocol if the replica dies.

    While nothing but progress events ("so much of the prompt was read") and pings has come, another replica may take over:
    the client then hears of progress from the beginning again, and the answer follows as if nothing had happened.
    """

    __slots__ = ("_content", "_done", "_exchange", "_first", "_meter", "_reading_prompt", "_response")

    def __init__(self, exchange: Exchange, response: aiohttp.ClientResponse, first: bytes) -> None:
        self._exchange = exchange
        endpoint, plan = exchange.endpoint, exchange.plan
        self._meter = StreamMeter(endpoint.piece, endpoint.bare, plan.answers, plan.prompts, endpoint.finish)
        self._done = False
        self._reading_prompt = True
        self._take_over(response, first)

    def _take_over(self, response: aiohttp.ClientResponse, first: bytes) -> None:
        self._response = response
        self._content = response.content
        self._first = first
        if not (self._exchange.tells_progress or first.startswith(PING) or upstream.error_told(first)):
            self._content_begins()

    def _content_begins(self) -> None:
        self._reading_prompt = False
        self._exchange.content_began()
        upstream.expect_bytes_soon(self._response)

    def __aiter__(self) -> AnswerStream:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._next()
        except asyncio.CancelledError:
            if self._done or not ending.has_begun():
                raise
            return self._cut_short()

    async def _next(self) -> bytes:
        if self._reading_prompt and (event := await self._before_content()):
            return event
        if self._first:
            if message_start.is_missing(self._first):
                self._first = await message_start.event(self._exchange) + self._first
            chunk, self._first = self._first, b""
            return self._passed_on(chunk)
        if self._done:
            raise StopAsyncIteration
        try:
            chunk = await self._content.readany()
        except UNREADABLE as error:
            if not self._meter.ended:
                return self._broken(error)
            chunk = b""
        if chunk:
            return self._passed_on(chunk)
        if not (self._meter.ended or self._meter.told_error):
            return self._broken(EOFError("the answer has no end"))
        self._end(Outcome.COMPLETED if self._meter.ended else Outcome.FAILED)
        raise StopAsyncIteration

    def _passed_on(self, chunk: bytes) -> bytes:
        self._meter.feed(chunk)
        self._exchange.delivers(self._meter.delivered)
        return chunk

    async def _before_content(self) -> bytes:
        """Whole progress events and pings, so that another replica's answer can follow; nothing once the content is there."""
        while True:
            events, end, rest = self._first.rpartition(EVENT_END)
            try:
                if self._has_content(events):
                    self._content_begins()
                    return b""
                if events:
                    self._first = rest
                    return events + end
                await self._read_more()
            except ReplicaFailed as error:
                if refusal := await self._asked_another(error):
                    return self._refused(refusal)
            except GatewayError as error:
                return self._refused(error)

    def _has_content(self, events: bytes) -> bool:
        """Raises ReplicaFailed, or GatewayError when the request is at fault, if the engine says that it failed before it."""
        for event in events.split(EVENT_END):
            if (error := upstream.error_told(event)) is not None:
                raise error
            if _is_content(event):
                return True
        return False

    async def _read_more(self) -> None:
        try:
            chunk = await self._content.readany()
        except UNREADABLE as error:
            raise ReplicaFailed(repr(error)) from error
        if not chunk:
            raise ReplicaFailed("the answer has no end")
        self._first += chunk

    async def _asked_another(self, failed: ReplicaFailed) -> GatewayError | None:
        """Why no other replica can answer, if so."""
        self._response.close()
        try:
            self._exchange.replica_failed(failed)
            self._take_over(*await self._exchange.open())
        except GatewayError as error:
            return error
        return None

    def _refused(self, error: GatewayError) -> bytes:
        self._done, self._reading_prompt, self._first = True, False, b""
        self._response.close()
        if self._exchange.lease is not None:
            self._exchange.lease.release()
        self._exchange.settle_failure(error)
        return errors.as_event(error, self._exchange.endpoint.protocol)

    def _broken(self, error: Exception) -> bytes:
        exchange = self._exchange
        logger.warning("%s broke off request %s: %r", exchange.replica_label, exchange.request.request_id, error)
        self._end(Outcome.FAILED)
        # An empty line first: the replica may have died in the middle of an event.
        return EVENT_END + errors.as_event(errors.upstream_error(), exchange.endpoint.protocol)

    def _cut_short(self) -> bytes:
        """This process ends, and with it the answer: the client hears so before the connection closes."""
        self._end(Outcome.FAILED)
        return EVENT_END + errors.as_event(errors.unavailable(), self._exchange.endpoint.protocol)

    def _end(self, outcome: str) -> None:
        if self._done:
            return
        self._done = True
        self._first = b""
        # After a complete answer the connection goes back to the pool by itself; else closing it stops the generation.
        self._response.close()
        exchange = self._exchange
        if exchange.lease is not None:
            exchange.lease.release()
        if self._reading_prompt:
            exchange.settle_left_early()
        else:
            exchange.settle_stream(self._meter, outcome)

    async def aclose(self) -> None:
        """The reader has gone. After the end this does nothing."""
        self._end(Outcome.FAILED if self._meter.told_error or ending.has_begun() else Outcome.CANCELLED)
