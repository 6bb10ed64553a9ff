"""A paid inference request, from the hold to the settlement.

The order is: may it be paid, wait for a slot, forward, and settle however it ended. What it costs by how it ended:

    the model's own figures               it came to its end, by whichever replicas
    prompt + tokens delivered             the client left, or the replica died, in the middle
    as much of the prompt as was read     the client left before the first content
    nothing                               it failed before the first token, or never got a slot

The first content is the first byte of the answer, or what follows the events that tell how much of the prompt was read.
Until then another replica may take over; after it one may go on with the answer: see ``resumption``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, cast

import aiohttp
from django.conf import settings

from accounts import journal
from accounts.callers import Caller
from accounts.models import UsageRecord, new_request_id
from accounts.prices import Price
from accounts.quota import Held, HoldRequest, Settlement, UsageFigures, note_of
from cluster.prefixes import Prompt
from gateway import bodies, counting, ending, errors, leaving, metrics, prompts, stats, upstream
from gateway.answer_stream import AnswerStream
from gateway.billing import billing
from gateway.bodies import Plan
from gateway.breaker import ATTEMPTS
from gateway.continuing import Continuation
from gateway.endpoints import Endpoint
from gateway.errors import GatewayError
from gateway.places import Place
from gateway.resumption import Delivered
from gateway.slots import Lease, ModelPool, OnQueue, SlotRequest, Standing
from gateway.upstream import ReplicaFailed
from gateway.usage import StreamMeter, TokenCount, read_figures

logger = logging.getLogger(__name__)
Outcome = UsageRecord.Outcome

NOTHING = TokenCount()
# Seconds after which the prompt of an answer that still streams is counted, for the case that we are killed. Short ones, which a
# fast model has many of, never get there.
NOTE_PROMPT_AFTER = 1.0


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
    deadline: float | None = None  # (monotonic) the client does not wait longer for the answer to begin
    # Headers of the answer that are known before it begins, for a client that is told that it waits.
    early: dict[str, str] = field(default_factory=dict)
    arrived: float = field(default_factory=monotonic)


@dataclass(slots=True)
class Answer:
    """Either ``body`` or ``stream``. Whoever stops reading a stream early must ``aclose`` it: that stops the generation.

    ``affordable``: the most tokens that balance and budget pay for; None when that is as many as the model may make anyway.
    ``model``: which one answers.
    """

    status: int
    headers: dict[str, str]
    body: bytes | None = None
    stream: AsyncIterator[bytes] | None = None
    replica: str = ""
    affordable: int | None = None
    model: str = ""

    async def aclose(self) -> None:
        if self.stream is not None:
            await cast(AnswerStream, self.stream).aclose()


def slot_request(request: InferenceRequest, raw: bytes, cost: int = 1) -> SlotRequest:
    """The caller decides for whom and how urgent it is, no header does."""
    caller = request.caller
    return SlotRequest(caller.tenant, cost, len(raw), caller.priority, request.deadline, weight=caller.weight)


class Exchange:
    """A paid request under way."""

    __slots__ = (
        "_arrived_at", "_continuation", "_delivered", "_failed", "_first_content", "_limit", "_note", "_noting",
        "_patient_until", "_prompt", "_queued_seconds", "_sent", "_settled", "_standing", "_taken_at", "_uncut",
        "_wanted", "endpoint", "lease", "place", "plan", "pool", "price", "prompt_bound", "raw", "replica_label", "request",
        "resumed",
    )  # fmt: skip

    def __init__(
        self, request: InferenceRequest, endpoint: Endpoint, plan: Plan, pool: ModelPool, price: Price, place: Place
    ) -> None:
        self.request = request
        self.endpoint = endpoint
        self.plan = plan
        self.pool = pool
        self.place = place
        self.price = price  # from the hold to the settlement, whatever is changed meanwhile
        self.lease: Lease | None = None
        self.replica_label = ""
        self._arrived_at = datetime.now(UTC)
        self._queued_seconds = 0.0  # before its first content
        self._standing: Standing | None = None  # when it first joined the line
        self._taken_at: float | None = None  # the slot that its first content came from
        self._sent: float | None = None
        self._first_content: float | None = None
        self._failed: frozenset[int] = frozenset()
        # Of an answer that streams: the slot of its note in the journal, and what will add the prompt to it.
        self._note: int | None = None
        self._delivered = 0
        self._noting: asyncio.TimerHandle | None = None
        self._settled = False
        self.raw = b""  # what is sent to the first replica
        self._prompt: Prompt | None = None
        self._continuation: Continuation | None = None
        self._patient_until = 0.0  # replicas that cannot be reached are tried again
        self.resumed = 0  # how often another replica went on with the answer
        # Tokens of a single answer: paid for; the same if money were no matter; without regard to the model's own limit either.
        self._limit = self._uncut = self._wanted = 0
        self.prompt_bound = plan.most_read(pool.view.longest_context)  # as held

    # -- the way ---------------------------------------------------------------------------------------------------------
    async def run(self) -> Answer:
        try:
            held = await self._hold()
        except BaseException:
            self.place.leave(0)
            raise
        stats.begun()
        try:
            self._set_limit(held)
            await self._refuse_if_too_long()
            return self._answer(*await self.open())
        except BaseException as error:
            self.settle_failure(error)
            raise

    async def _hold(self) -> Held:
        view, plan = self.pool.view, self.plan
        longest = min(view.max_tokens, view.context_length or view.max_tokens) if self.endpoint.generates else 0
        self._wanted = longest
        if longest and plan.asked_tokens is not None:
            longest, self._wanted = min(longest, max(plan.asked_tokens, 1)), plan.asked_tokens
        self._uncut = longest
        return await billing.hold(
            HoldRequest(
                self.request.request_id,
                self.request.caller.wallet_id,
                view.name,
                self.prompt_bound,
                longest * plan.answers,
                key_id=self.request.caller.key_id,
                price=self.price,
            )
        )

    def _set_limit(self, held: Held) -> None:
        """The longest single answer that was paid for goes into the body."""
        self._limit = held.max_tokens // self.plan.answers
        if self.endpoint.generates and not self._limit:
            raise errors.insufficient_quota()
        self.request.early.pop("x-max-tokens", None)  # of a trial by another model, which failed
        if self._limit < self._wanted:
            self.request.early["x-max-tokens"] = str(self._limit)
        self.raw = bodies.with_limit(self.endpoint, self.request.body, self.request.raw, self.plan, self._limit)

    async def _refuse_if_too_long(self) -> None:
        """Where it would wait, it hears so first: engines count without a slot. Else the engine says so before it reads."""
        context = self.pool.view.longest_context
        if context is None or self.pool.router.has_free_slot or not self.plan.may_exceed(context):
            return
        tokens, longest = await counting.told_before(self), bodies.in_engine(context)
        if tokens is not None and tokens >= longest:
            raise errors.context_length_exceeded(tokens, longest, self.endpoint.required)

    @property
    def most_tokens(self) -> int:
        """That a single answer may have."""
        asked = self.plan.asked_tokens
        return self._limit if asked is None else min(asked, self._limit)

    async def open(self) -> tuple[aiohttp.ClientResponse, bytes]:
        """The next replica's answer: its head and first bytes, or the whole where it is no stream. Keeps the slot then."""
        while True:
            self._sent = None
            lease = await self._slot()
            self._sent = monotonic()
            try:
                async with asyncio.timeout(settings.ANSWER_SECONDS):
                    return await self._ask(lease)
            except ReplicaFailed as error:
                self.replica_failed(error)
            except TimeoutError:
                self._left_to_itself(lease)
                raise errors.took_too_long(settings.ANSWER_SECONDS) from None
            except asyncio.CancelledError:
                self._left_to_itself(lease)
                raise
            except BaseException:
                lease.release()
                raise

    def _left_to_itself(self, lease: Lease) -> None:
        """Its engine reads on."""
        leaving.release_when_idle(lease)
        self.lease = None

    async def _slot(self) -> Lease:
        began = monotonic()
        try:
            lease = await self.pool.take(self._slot_request(), self.request.on_queue)
        finally:
            if self._first_content is None:
                self._taken_at = monotonic()
                self._queued_seconds += self._taken_at - began
        self.lease, self.replica_label = lease, lease.replica.label
        self._standing = self._standing or lease.standing
        return lease

    def _slot_request(self) -> SlotRequest:
        expectation, answers = self.pool.expectation, self.plan.answers
        if self._prompt is None:
            self._prompt = prompts.chain(self.endpoint, self.request.body)
        likely = self.plan.likely_read(self.pool.view.longest_context)
        wanted = slot_request(self.request, self.raw, expectation.cost(likely, self._limit, answers))
        return replace(
            wanted,
            prompt=self._prompt,
            tokens=expectation.request(self._prompt, likely, self._limit, answers),
            excluded=self._failed,
            returned=self.resumed > 0,
            deadline=wanted.deadline if not self.resumed else None,  # it has begun long ago
        )

    def replica_failed(self, error: ReplicaFailed) -> None:
        """Before its first content. Raises GatewayError unless another one may be tried."""
        lease = self.lease
        assert lease is not None  # noqa: S101 - it was asked
        logger.warning("%s failed request %s: %s", self.replica_label, self.request.request_id, error)
        self.pool.failed(lease.replica, unreachable=error.unreachable)
        lease.release()
        if error.unreachable and monotonic() < self._patient_until:
            return
        self._failed |= {lease.replica.view.id}
        if len(self._failed) >= ATTEMPTS or not self.pool.router.budget.spend():
            raise errors.upstream_error()
        metrics.RETRIES.labels(self.pool.view.name).inc()

    def replica_broke_off(self, error: Exception) -> None:
        """After the first content. Whoever goes on takes a slot anew."""
        lease = self.lease
        assert lease is not None  # noqa: S101 - it was asked
        self.pool.failed(lease.replica, unreachable=not isinstance(error, ReplicaFailed))
        lease.release()

    async def resume(self, delivered: Delivered, tokens: int) -> tuple[aiohttp.ClientResponse, bytes]:
        """After ``replica_broke_off``, when it had answered so much, of so many tokens: what another one goes on with, or the
        same one when it is back. Raises GatewayError."""
        self.resumed += 1
        # Whoever has half an answer waits until somebody is there again.
        self._failed, self._patient_until = frozenset(), monotonic() + self.pool.queue_wait
        metrics.RESUMED.labels(self.pool.view.name).inc()
        left, pictures = self.most_tokens - tokens, self.plan.pictures.count > 0
        self._continuation = Continuation(self.endpoint, self.request.body, delivered, left, pictures)
        return await self.open()

    async def _ask(self, lease: Lease) -> tuple[aiohttp.ClientResponse, bytes]:
        replica, path, raw = lease.replica.view, self.endpoint.upstream_path, self.raw
        if self._continuation is not None:
            path, raw = await self._continuation.request(replica)
        try:
            response = await upstream.open_answer(replica, path, raw)
        except GatewayError as error:
            self.about_its_input(error)
            raise
        try:
            first = await (upstream.first_event if self.streams else upstream.whole_answer)(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            response.close()
            raise ReplicaFailed(repr(error)) from error
        except BaseException:
            response.close()
            raise
        return response, first

    def about_its_input(self, error: GatewayError) -> GatewayError:
        """Engines do not say in which field the text stands that is too long."""
        if error.code == "context_length_exceeded":
            error.param = self.endpoint.required
        return error

    @property
    def streams(self) -> bool:
        return self.plan.stream and self.endpoint.generates

    @property
    def tells_progress(self) -> bool:
        """Whether events that tell how much of the prompt was read may come before the content."""
        return self.request.body.get("return_progress") is True

    def content_began(self) -> None:
        self._first_content = monotonic()
        self.answers()
        if self.streams:
            self.note()
            loop = asyncio.get_running_loop()
            self._noting = loop.call_later(NOTE_PROMPT_AFTER, counting.note_prompt, self)

    def answers(self) -> None:
        """The replica does: it works, and has read the prompt."""
        if self.lease is not None:
            self.pool.router.has_read(self.lease.placement)

    def note(self, prompt: int = 0) -> None:
        """What it would cost if this process were killed now; ``delivers`` keeps the answer's tokens up to date."""
        if not self._settled:
            if_we_die = self._settlement(Outcome.FAILED, 502, TokenCount(prompt=prompt))
            self._note = journal.own().replace(self._note, note_of(if_we_die, is_final=False), self._delivered)

    def delivers(self, tokens: int) -> None:
        """So many in all, with those that go to the client now."""
        self._delivered = tokens
        journal.own().count(self._note, tokens)

    @property
    def is_overdue(self) -> bool:
        return self._taken_at is not None and monotonic() - self._taken_at > settings.ANSWER_SECONDS

    @property
    def affordable(self) -> int | None:
        """How long an answer may get, where balance or budget say so."""
        return self._limit if self._limit < self._uncut else None

    def _answer(self, response: aiohttp.ClientResponse, first: bytes) -> Answer:
        model = self.pool.view.name
        if self.streams:
            stream = AnswerStream(self, response, first)
            return Answer(200, self._headers(response), None, stream, self.replica_label, self.affordable, model)
        self.content_began()
        if self.lease is not None:
            self.lease.release()
        self._settle_whole(first)
        return Answer(200, self._headers(response), first, None, self.replica_label, self.affordable, model)

    def _headers(self, response: aiohttp.ClientResponse) -> dict[str, str]:
        headers = {
            "content-type": response.headers.get("Content-Type", "application/json"),
            "x-request-id": self.request.request_id,
            "x-replica": self.replica_label,
            "x-queue-ms": str(self.queue_ms),
            **(self._standing.headers if self._standing is not None else {}),
            "openai-processing-ms": str(round(1000 * (monotonic() - self.request.arrived))),
            **self.request.early,
        }
        if self.streams:
            headers["cache-control"] = "no-cache"
            headers["x-accel-buffering"] = "no"
        return headers

    # -- the bill -------------------------------------------------------------------------------------------------------
    @property
    def queue_ms(self) -> int:
        return round(1000 * self._queued_seconds)

    def settle(self, outcome: str, status: int, count: TokenCount) -> None:
        """The second call does nothing."""
        if self._settled:
            return
        self._settled = True
        if self._noting is not None:
            self._noting.cancel()
        settlement = self._settlement(outcome, status, count)
        billing.settle(settlement, self._note)
        self.place.leave(count.prompt + count.completion)
        stats.ended(count.completion)
        metrics.observe(settlement.usage)

    def _settlement(self, outcome: str, status: int, count: TokenCount) -> Settlement:
        now = monotonic()
        arrived, caller = self.request.arrived, self.request.caller
        figures = UsageFigures(
            model_name=self.pool.view.name,
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
            first_token_ms=None if self._first_content is None else round(1000 * (self._first_content - arrived)),
            duration_ms=round(1000 * (now - arrived)),
            tokens_per_second=count.tokens_per_second or self._speed(count, now),
            created_at=self._arrived_at,
            resumed=self.resumed,
        )
        return Settlement(self.request.request_id, caller.wallet_id, figures, caller.key_id, self.price)

    def _speed(self, count: TokenCount, now: float) -> float | None:
        """Generation alone, where the engine does not tell: the first token came with the prompt."""
        if self._first_content is None or count.completion < 2 or now <= self._first_content:
            return None
        return round((count.completion - 1) / (now - self._first_content), 2)

    def settle_counted(self, outcome: str, status: int, count: TokenCount) -> None:
        if count.prompt_per_second is not None:
            self.pool.prompt_per_second = count.prompt_per_second
        if outcome == Outcome.COMPLETED and self.lease is not None and not self.resumed:
            size = self._prompt.size if self._prompt is not None and not self.plan.pictures.count else 0
            self.pool.learn(self.lease, count, self.plan.answers, size)
        self.settle(outcome, status, count)

    def _settle_whole(self, body: bytes) -> None:
        count = read_figures(body)
        if self.plan.answers > 1 or count is None:
            # The engine's figures are those of one of the answers only.
            told = count or NOTHING
            counting.later(self, counting.of_answers(self, body, told), Outcome.COMPLETED, told.completion)
        else:
            self.settle_counted(Outcome.COMPLETED, 200, count)

    def settle_stream(self, meter: StreamMeter, outcome: str) -> None:
        """``outcome``: how it ended, unless the engine has said that the answer is complete."""
        if meter.ended:
            outcome = Outcome.COMPLETED
        count = meter.figures()
        if count is not None and outcome == Outcome.COMPLETED and count.prompt:
            self.settle_counted(outcome, 200, count)
        elif count is not None and outcome == Outcome.COMPLETED:
            counting.later(self, counting.of_prompt(self, count.completion), outcome, count.completion)
        elif outcome == Outcome.FAILED and not meter.delivered:
            self.settle(outcome, 502, NOTHING)
        else:
            counting.later(self, counting.of_prompt(self, meter.delivered), outcome, meter.delivered)

    def settle_failure(self, error: BaseException) -> None:
        """It ended with ``error``, before its first content."""
        if isinstance(error, GatewayError):
            self.settle(Outcome.FAILED if error.status >= 500 else Outcome.REFUSED, error.status, NOTHING)
        elif isinstance(error, asyncio.CancelledError):
            self.settle_left_early()
        else:
            self.settle(Outcome.FAILED, 500, NOTHING)

    def settle_left_early(self) -> None:
        """The client left before the first content. Only what the replica has read since it got the request is charged; nothing
        if it is we who leave."""
        if ending.has_begun():
            self.settle(Outcome.FAILED, errors.unavailable().status, NOTHING)
        elif self._sent is None:
            self.settle(Outcome.CANCELLED, 499, NOTHING)
        else:
            counting.later(self, counting.of_prompt_read(self, monotonic() - self._sent), Outcome.CANCELLED)
