"""The bytes of a streamed answer on their way to the client."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import aiohttp
from django.conf import settings

from accounts.models import UsageRecord
from gateway import counting, ending, errors, leaving, message_start, resumption, upstream
from gateway.errors import GatewayError
from gateway.resumption import Delivered, Joint
from gateway.upstream import ReplicaFailed
from gateway.usage import DONE, EVENT_END, PROGRESS, StreamMeter
from gateway.whole_events import WholeEvents, until_failure

if TYPE_CHECKING:
    from gateway.exchange import Exchange

logger = logging.getLogger(__name__)
Outcome = UsageRecord.Outcome

# A comment, which llama-server sends every 30 s (newer ones every second) while it has nothing to say.
PING = b":"
UNREADABLE = (aiohttp.ClientError, TimeoutError, OSError)


def _is_content(event: bytes) -> bool:
    return bool(event) and not event.startswith(PING) and PROGRESS not in event


class AnswerStream:
    """Its events as they come, each whole, with the bytes that the engine wrote.

    While nothing but progress events ("so much of the prompt was read") and pings has come, another replica may take over:
    the client then hears of progress from the beginning again, and the answer follows as if nothing had happened.
    Later another one goes on where the answer was broken off, if such an answer can be gone on with (``resumption``).
    Else, or when that fails too, it ends with an error event in the client's protocol.
    """

    __slots__ = (
        "_awaited", "_content", "_delivered", "_done", "_events", "_exchange", "_first", "_joint", "_lost", "_meter",
        "_reading_prompt", "_response",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, response: aiohttp.ClientResponse, first: bytes) -> None:
        self._exchange = exchange
        endpoint, plan = exchange.endpoint, exchange.plan
        self._meter = StreamMeter(endpoint.piece, endpoint.bare, plan.answers, plan.prompts, endpoint.finish)
        self._done = False
        self._reading_prompt = True
        may_go_on = resumption.is_possible(endpoint, exchange.request.body, plan)
        self._delivered = Delivered() if may_go_on else None
        self._joint: Joint | None = None
        self._awaited = False  # the first event of whoever goes on
        self._events = WholeEvents()
        self._lost: GatewayError | ReplicaFailed | None = None  # what the engine said of its failure
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
            # This process ends, and with it the answer: the client hears so before the connection closes.
            return self._ended_with(errors.unavailable())

    async def _next(self) -> bytes:
        if self._reading_prompt and (event := await self._before_content()):
            return event
        while not self._done:
            try:
                chunk = await self._read()
                events = self._whole(chunk)
            except (*UNREADABLE, ReplicaFailed) as error:
                told = await self._at_end(error)
            except GatewayError as error:
                told = self._ended_with(error)
            else:
                told = self._passed_on(events) if chunk else await self._at_end(EOFError("the answer has no end"))
            if told:
                return told
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        """Nothing at the end."""
        if self._lost is not None:
            raise self._lost
        if self._exchange.is_overdue:
            raise errors.took_too_long(settings.ANSWER_SECONDS)
        if self._first:
            if message_start.is_missing(self._first):
                self._first = await message_start.event(self._exchange) + self._first
            chunk, self._first = self._first, b""
            return chunk
        return await self._content.readany()

    def _whole(self, chunk: bytes) -> bytes:
        if self._joint is None:
            return self._events.feed(chunk)
        try:
            events = self._joint.fit(chunk)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReplicaFailed("an event of another form") from error
        if events and self._awaited:
            self._awaited = False
            self._exchange.answers()
            upstream.expect_bytes_soon(self._response)
        return events

    def _passed_on(self, events: bytes) -> bytes:
        events, self._lost = until_failure(events)
        if events:
            if self._delivered is not None:
                self._delivered.add(events)
            self._meter.feed(events)
            self._exchange.delivers(self._meter.delivered)
        return events

    async def _at_end(self, error: Exception) -> bytes:
        """Nothing more comes from this replica: what is passed on instead, if anything."""
        if self._meter.ended:
            rest = await self._missing_end("")
            self._end(Outcome.COMPLETED)
            return rest
        exchange = self._exchange
        if self._delivered is not None and self._meter.delivered >= exchange.most_tokens:
            rest = await self._missing_end("length")
            self._meter.feed(rest)
            self._end(Outcome.COMPLETED)
            return rest
        logger.warning("%s broke off request %s: %r", exchange.replica_label, exchange.request.request_id, error)
        exchange.replica_broke_off(error)
        return b"" if await self._goes_on() else self._ended_with(errors.upstream_error())

    def _ended_with(self, error: GatewayError) -> bytes:
        self._end(Outcome.FAILED)
        return errors.as_event(error, self._exchange.endpoint.protocol)

    async def _missing_end(self, reason: str) -> bytes:
        """The last events, where the replica was lost before them but after the answer."""
        if self._meter.closed or self._exchange.endpoint.name not in resumption.SAY_DONE:
            return b""
        if self._delivered is None:
            return DONE + EVENT_END
        usage = None
        if self._meter.figures() is None and self._usage_asked:
            usage = await counting.prompt_at_once(self._exchange), self._meter.delivered
        self._delivered.read()
        return resumption.ending(self._delivered.common, self._exchange.pool.view.name, reason, usage)

    @property
    def _usage_asked(self) -> bool:
        options = self._exchange.request.body.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    async def _goes_on(self) -> bool:
        """Whether another replica does, or the same one when it is back."""
        exchange, delivered = self._exchange, self._delivered
        if delivered is None or exchange.resumed >= resumption.MOST or ending.has_begun():
            return False
        delivered.read()
        if delivered.calls_tools:
            return False
        self._response.close()
        before = self._meter.delivered
        try:
            response, first = await exchange.resume(delivered, before)
        except GatewayError as refusal:
            logger.warning("nobody goes on with request %s: %s", exchange.request.request_id, refusal)
            return False
        # At once, so that whatever happens it is closed in the end.
        self._response, self._content, self._first = response, response.content, first
        self._events, self._lost, self._awaited = WholeEvents(), None, True
        prompt = await counting.prompt_at_once(exchange)
        self._joint = Joint(delivered, prompt, before, usage_asked=self._usage_asked)
        return True

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
        return errors.as_event(self._exchange.about_its_input(error), self._exchange.endpoint.protocol)

    def _end(self, outcome: str) -> None:
        if self._done:
            return
        self._done = True
        self._first = b""
        # After a complete answer the connection goes back to the pool by itself; else closing it stops the generation.
        self._response.close()
        exchange = self._exchange
        if exchange.lease is not None and self._reading_prompt:
            leaving.release_when_idle(exchange.lease)
        elif exchange.lease is not None:
            exchange.lease.release()
        if self._reading_prompt:
            exchange.settle_left_early()
        else:
            exchange.settle_stream(self._meter, outcome)

    async def aclose(self) -> None:
        """The reader has gone. After the end this does nothing."""
        self._end(Outcome.FAILED if self._lost is not None or ending.has_begun() else Outcome.CANCELLED)
