"""Counting tokens for requests that did not come to an ordinary end, by asking the engine after the fact.

The client is not kept waiting: the settlement follows when the count is known, or at the process's end with an estimate.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway import bodies, upstream
from gateway.billing import billing
from gateway.usage import TokenCount

if TYPE_CHECKING:
    from gateway.inference import Exchange

logger = logging.getLogger(__name__)

ASK_SECONDS = 10.0
BYTES_PER_TOKEN = 4  # a rough mean over languages, where the engine cannot be asked any more


@dataclass(frozen=True, slots=True)
class _Unsettled:
    exchange: Exchange
    outcome: str
    delivered: int

    def settle_by_estimate(self) -> None:
        prompt = _estimated_prompt(self.exchange)
        self.exchange.settle(self.outcome, _status(self.outcome), TokenCount(prompt=prompt, completion=self.delivered))


_pending: dict[asyncio.Task[TokenCount], _Unsettled] = {}


def later(exchange: Exchange, count: Coroutine[Any, Any, TokenCount], outcome: str, delivered: int = 0) -> None:
    """Settle ``exchange`` with what ``count`` finds out; ``delivered`` tokens of the answer are known already."""
    billing.before_exit = _settle_by_estimate
    task = asyncio.get_running_loop().create_task(count)
    _pending[task] = _Unsettled(exchange, outcome, delivered)
    task.add_done_callback(_counted)


def _counted(task: asyncio.Task[TokenCount]) -> None:
    waiting = _pending.pop(task)
    exchange, outcome = waiting.exchange, waiting.outcome
    if task.cancelled() or task.exception() is not None:
        logger.warning("request %s is charged by an estimate", exchange.request.request_id)
        waiting.settle_by_estimate()
    else:
        exchange.settle_counted(outcome, _status(outcome), task.result())


def _settle_by_estimate() -> None:
    for waiting in list(_pending.values()):
        waiting.settle_by_estimate()


def _status(outcome: str) -> int:
    """499 is what nginx logs for a client that closed the connection."""
    return {"completed": 200, "cancelled": 499}.get(outcome, 502)


def _estimated_prompt(exchange: Exchange) -> int:
    return exchange.plan.prompt_bound // BYTES_PER_TOKEN


# -- what is counted -------------------------------------------------------------------------------------------------
async def of_prompt(exchange: Exchange, delivered: int) -> TokenCount:
    return TokenCount(prompt=await _prompt_tokens(exchange), completion=delivered)


async def of_prompt_read(exchange: Exchange, seconds: float) -> TokenCount:
    """As much of the prompt as the replica can have read in ``seconds``."""
    prompt = await _prompt_tokens(exchange)
    speed = exchange.pool.prompt_per_second
    return TokenCount(prompt=prompt if speed is None else min(prompt, round(speed * seconds)))


async def of_answers(exchange: Exchange, body: bytes, reported: TokenCount) -> TokenCount:
    """Several answers at once: the sum over their texts."""
    try:
        choices = json.loads(body).get("choices") or []
        texts = [choice.get("text") or (choice.get("message") or {}).get("content") or "" for choice in choices]
    except (ValueError, AttributeError):
        texts = []
    counts = [await _tokens_of(exchange, text) for text in texts]
    prompt = await _prompt_tokens(exchange) if isinstance(exchange.request.body.get("prompt"), list) else 0
    return TokenCount(
        prompt=max(prompt, reported.prompt), cached=reported.cached, completion=max(sum(counts), reported.completion)
    )


async def _tokens_of(exchange: Exchange, text: str) -> int:
    answer = await _ask(exchange, "/tokenize", bodies.write({"content": text}))
    tokens = answer.get("tokens") if answer else None
    return len(tokens) if isinstance(tokens, list) else len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN


async def _prompt_tokens(exchange: Exchange) -> int:
    prompt = exchange.request.body.get("prompt")
    if exchange.endpoint.name == "completions":
        counts: list[int] = [
            await _tokens_of(exchange, part) if isinstance(part, str) else len(part) if isinstance(part, list) else 1
            for part in (prompt if isinstance(prompt, list) else [prompt])
        ]
        return sum(counts)
    answer = await _ask(exchange, exchange.endpoint.count_path, exchange.raw) if exchange.endpoint.count_path else None
    count = answer.get("input_tokens") if answer else None
    return count if isinstance(count, int) else _estimated_prompt(exchange)


async def _ask(exchange: Exchange, path: str, body: bytes) -> dict[str, Any] | None:
    replica = exchange.lease.replica if exchange.lease is not None else None
    if replica is None or not replica.serves:
        replica = exchange.pool.any_replica()
    return None if replica is None else await upstream.ask(replica.view, path, body, ASK_SECONDS)
