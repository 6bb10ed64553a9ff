"""One inference request, from the hold to the settlement. The HTTP endpoints and the chat page both call ``infer``.

The order is: may it be paid, wait for a slot, forward, and settle however it ended. What it costs by how it ended:

    the model's own figures               it came to its end
    prompt + tokens delivered             the client left, or the replica died, in the middle
    as much of the prompt as was read     the client left before the first content
    nothing                               it failed before the first content, or never got a slot

The first content is the first byte of the answer, or what follows the events that tell how much of the prompt was read.
Until then another replica may take over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, cast

import aiohttp
from django.utils import timezone

from accounts.callers import Caller
from accounts.models import UsageRecord, new_request_id
from accounts.quota import Held, HoldRequest, Settlement, UsageFigures
from gateway import bodies, counting, errors, metrics, stats, upstream
from gateway.answer_stream import AnswerStream
from gateway.billing import billing
from gateway.bodies import Plan
from gateway.endpoints import ENDPOINTS, Endpoint
from gateway.errors import GatewayError
from gateway.models_directory import directory
from gateway.slots import Lease, ModelPool, OnQueue
from gateway.upstream import ReplicaFailed
from gateway.usage import StreamMeter, TokenCount, read_figures

logger = logging.getLogger(__name__)
Outcome = UsageRecord.Outcome

ATTEMPTS = 2
NOTHING = TokenCount()


@dataclass(slots=True, eq=False)
class InferenceRequest:
    """``raw``: the bytes ``body`` was read from; without it the body is written anew. ``stream`` overrides the body's."""

    endpoint: str
    body: dict[str, Any]
    caller: Caller
    source: str = "api"
    request_id: str = field(default_factory=new_request_id)
    stream: bool | None = None
    raw: bytes | None = None
    on_queue: OnQueue | None = None
    arrived: float = field(default_factory=monotonic)


@dataclass(slots=True)
class Answer:
    """Either ``body`` or ``stream``. Whoever stops reading a stream early must ``aclose`` it: that stops the generation."""

    status: int
    headers: dict[str, str]
    body: bytes | None = None
    stream: AsyncIterator[bytes] | None = None
    replica: str = ""

    async def aclose(self) -> None:
        if self.stream is not None:
            await cast(AnswerStream, self.stream).aclose()


async def infer(request: InferenceRequest) -> Answer:
    """Raises GatewayError. Cancelling the call means that the client went away."""
    endpoint = ENDPOINTS[request.endpoint]
    if request.stream is not None and request.stream is not bool(request.body.get("stream")):
        request.body, request.raw = {**request.body, "stream": request.stream}, None
    plan = bodies.check(endpoint, request.body)
    pool = await directory().pool(plan.model)
    if pool is None:
        raise errors.model_not_found(plan.model)
    if not endpoint.priced:
        return await _ask_freely(request, endpoint, pool)
    return await Exchange(request, endpoint, plan, pool).run()


async def _ask_freely(request: InferenceRequest, endpoint: Endpoint, pool: ModelPool) -> Answer:
    """Counting and cutting text costs nothing and needs no slot."""
    replica = pool.any_replica()
    if replica is None:
        raise errors.model_not_available(pool.view.name, pool.retry_after())
    raw = request.raw if request.raw is not None else bodies.write(request.body)
    try:
        response = await upstream.open_answer(replica.view, endpoint.upstream_path, raw)
        body = await response.read()
    except (ReplicaFailed, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise errors.upstream_error() from error
    headers = {"content-type": "application/json", "x-request-id": request.request_id, "x-replica": replica.label}
    return Answer(200, headers, body=body, replica=replica.label)


class Exchange:
    """A paid request under way."""

    __slots__ = (
        "_arrived_at", "_failed", "_first_content", "_limit", "_queued_until", "_raw", "_sent", "_settled",
        "endpoint", "lease", "plan", "pool", "replica_label", "request",
    )  # fmt: skip

    def __init__(self, request: InferenceRequest, endpoint: Endpoint, plan: Plan, pool: ModelPool) -> None:
        self.request = request
        self.endpoint = endpoint
        self.plan = plan
        self.pool = pool
        self.lease: Lease | None = None
        self.replica_label = ""
        self._arrived_at: datetime = timezone.now()
        self._queued_until: float | None = None
        self._sent: float | None = None
        self._first_content: float | None = None
        self._failed: frozenset[int] = frozenset()
        self._settled = False
        self._raw = b""
        self._limit = 0

    # -- the way ---------------------------------------------------------------------------------------------------------
    async def run(self) -> Answer:
        held = await self._hold()
        stats.begun()
        try:
            self._set_limit(held)
            return self._answer(*await self.open())
        except BaseException as error:
            self.settle_failure(error)
            raise

    async def _hold(self) -> Held:
        view, plan = self.pool.view, self.plan
        bound, longest = plan.prompt_bound, view.max_tokens
        if view.context_length:
            bound, longest = min(bound, view.context_length * plan.answers), min(longest, view.context_length)
        if not self.endpoint.generates:
            longest = 0
        elif plan.asked_tokens is not None:
            longest = min(longest, max(plan.asked_tokens, 1))
        wanted = HoldRequest(
            self.request.request_id, self.request.caller.wallet_id, view.name, bound, longest * plan.answers
        )
        return await billing.hold(wanted)

    def _set_limit(self, held: Held) -> None:
        """The longest single answer that was paid for goes into the body."""
        self._limit = held.max_tokens // self.plan.answers
        if self.endpoint.generates and not self._limit:
            raise errors.insufficient_quota()
        self._raw = bodies.with_limit(self.endpoint, self.request.body, self.request.raw, self.plan, self._limit)

    async def open(self) -> tuple[aiohttp.ClientResponse, bytes]:
        """The next replica's answer: its head and first bytes, or the whole where it is no stream. Keeps the slot then."""
        while True:
            self._sent = None
            lease = await self.pool.take(self.request.caller.user_id, self._failed, self.request.on_queue)
            self.lease, self.replica_label = lease, lease.replica.label
            self._sent = self._queued_until = monotonic()
            try:
                return await self._ask(lease)
            except ReplicaFailed as error:
                self.replica_failed(error)
            except BaseException:
                lease.release()
                raise

    def replica_failed(self, error: ReplicaFailed) -> None:
        """Before its first content. Raises GatewayError unless another one may be tried."""
        lease = self.lease
        assert lease is not None  # noqa: S101 - it was asked
        logger.warning("%s failed request %s: %s", self.replica_label, self.request.request_id, error)
        self._failed |= {lease.replica.view.id}
        if error.unreachable:
            self.pool.set_aside(lease.replica)
        lease.release()
        if len(self._failed) >= ATTEMPTS:
            raise errors.upstream_error()
        metrics.RETRIES.labels(self.pool.view.name).inc()

    async def _ask(self, lease: Lease) -> tuple[aiohttp.ClientResponse, bytes]:
        response = await upstream.open_answer(lease.replica.view, self.endpoint.upstream_path, self._raw)
        try:
            first = await (response.content.readany() if self.streams else response.read())
            if self.streams and not first:
                raise ReplicaFailed("an empty stream")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            response.close()
            raise ReplicaFailed(repr(error)) from error
        except BaseException:
            response.close()
            raise
        return response, first

    @property
    def streams(self) -> bool:
        return self.plan.stream and self.endpoint.generates

    @property
    def tells_progress(self) -> bool:
        """Whether events that tell how much of the prompt was read may come before the content."""
        return self.request.body.get("return_progress") is True

    def content_began(self) -> None:
        self._first_content = monotonic()

    def _answer(self, response: aiohttp.ClientResponse, first: bytes) -> Answer:
        if self.streams:
            stream = AnswerStream(self, response, first)
            return Answer(200, self._headers(response), stream=stream, replica=self.replica_label)
        self.content_began()
        if self.lease is not None:
            self.lease.release()
        self._settle_whole(first)
        return Answer(200, self._headers(response), first, replica=self.replica_label)

    def _headers(self, response: aiohttp.ClientResponse) -> dict[str, str]:
        headers = {
            "content-type": response.headers.get("Content-Type", "application/json"),
            "x-request-id": self.request.request_id,
            "x-replica": self.replica_label,
            "x-queue-ms": str(self.queue_ms),
            "openai-processing-ms": str(round(1000 * (monotonic() - self.request.arrived))),
        }
        if self.endpoint.generates and (self.plan.asked_tokens or 0) > self._limit:
            headers["x-max-tokens"] = str(self._limit)
        if self.streams:
            headers["cache-control"] = "no-cache"
            headers["x-accel-buffering"] = "no"
        return headers

    # -- the bill -------------------------------------------------------------------------------------------------------
    @property
    def queue_ms(self) -> int:
        until = self._queued_until if self._queued_until is not None else monotonic()
        return round(1000 * (until - self.request.arrived))

    @property
    def raw(self) -> bytes:
        """What was sent to the replica."""
        return self._raw

    def settle(self, outcome: str, status: int, count: TokenCount) -> None:
        """The second call does nothing."""
        if self._settled:
            return
        self._settled = True
        now = monotonic()
        arrived, model = self.request.arrived, self.pool.view.name
        first = None if self._first_content is None else round(1000 * (self._first_content - arrived))
        figures = UsageFigures(
            model_name=model,
            endpoint=self.endpoint.name,
            status=status,
            outcome=outcome,
            source=self.request.source,
            replica=self.replica_label,
            streamed=self.plan.stream,
            prompt_tokens=count.prompt,
            cached_tokens=count.cached,
            completion_tokens=count.completion,
            queue_ms=self.queue_ms,
            first_token_ms=first,
            duration_ms=round(1000 * (now - arrived)),
            tokens_per_second=count.tokens_per_second or self._speed(count, now),
            created_at=self._arrived_at,
        )
        billing.settle(Settlement(self.request.request_id, self.request.caller.wallet_id, figures))
        stats.ended(count.completion)
        metrics.observe(figures)

    def _speed(self, count: TokenCount, now: float) -> float | None:
        """Generation alone, where the engine does not tell: the first token came with the prompt."""
        if self._first_content is None or count.completion < 2 or now <= self._first_content:
            return None
        return round((count.completion - 1) / (now - self._first_content), 2)

    def settle_counted(self, outcome: str, status: int, count: TokenCount) -> None:
        if count.prompt_per_second is not None:
            self.pool.prompt_per_second = count.prompt_per_second
        self.settle(outcome, status, count)

    def _settle_whole(self, body: bytes) -> None:
        count = read_figures(body)
        if self.plan.answers > 1 or count is None:
            # The engine's figures are those of one of the answers only.
            counting.later(self, counting.of_answers(self, body, count or NOTHING), Outcome.COMPLETED)
        else:
            self.settle_counted(Outcome.COMPLETED, 200, count)

    def settle_stream(self, meter: StreamMeter, outcome: str) -> None:
        """``outcome``: how it ended if the engine gave no figures, that is, before its end."""
        count = meter.figures()
        if count is not None and (meter.ended or outcome == Outcome.COMPLETED):
            if self.plan.answers > 1:
                count.completion = self._delivered(meter)
            self.settle_counted(Outcome.COMPLETED, 200, count)
        else:
            delivered = self._delivered(meter)
            counting.later(self, counting.of_prompt(self, delivered), outcome, delivered)

    def _delivered(self, meter: StreamMeter) -> int:
        return max(0, meter.events - self.endpoint.bare_events * self.plan.answers)

    def settle_failure(self, error: BaseException) -> None:
        """It ended with ``error``, before its first content."""
        if isinstance(error, GatewayError):
            self.settle(Outcome.FAILED if error.status >= 500 else Outcome.REFUSED, error.status, NOTHING)
        elif isinstance(error, asyncio.CancelledError):
            self.settle_left_early()
        else:
            self.settle(Outcome.FAILED, 500, NOTHING)

    def settle_left_early(self) -> None:
        """The client left before the first content. Only what the replica has read since it got the request is charged."""
        if self._sent is None:
            self.settle(Outcome.CANCELLED, 499, NOTHING)
        else:
            counting.later(self, counting.of_prompt_read(self, monotonic() - self._sent), Outcome.CANCELLED)
