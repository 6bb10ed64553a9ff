"""Counting tokens for requests that did not come to an ordinary end, by asking the engine after the fact.

The client is not kept waiting: the settlement follows when the count is known, or at the process's end with an estimate.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from gateway import bodies, media, upstream
from gateway.billing import billing
from gateway.routing import ReplicaSlots
from gateway.upstream import ReplicaFailed
from gateway.usage import TokenCount, read_figures, total

if TYPE_CHECKING:
    from gateway.exchange import Exchange

logger = logging.getLogger(__name__)

ASK_SECONDS = 10.0
ASK_BEFORE_SECONDS = 2.0  # while somebody could wait already
PATIENCE_SECONDS, ASK_AGAIN_SECONDS = 30.0, 0.5  # so long it may take until an engine that died is back


@dataclass(frozen=True, slots=True)
class _Unsettled:
    exchange: Exchange
    outcome: str
    delivered: int

    def settle_by_estimate(self) -> None:
        prompt = _estimated_prompt(self.exchange)
        self.exchange.settle(self.outcome, _status(self.outcome), TokenCount(prompt=prompt, completion=self.delivered))


_pending: dict[asyncio.Task[TokenCount], _Unsettled] = {}
_noting: set[asyncio.Task[None]] = set()


def later(exchange: Exchange, count: Coroutine[Any, Any, TokenCount], outcome: str, delivered: int = 0) -> None:
    """Settle ``exchange`` with what ``count`` finds out; ``delivered`` tokens of the answer are known already."""
    billing.before_exit = _settle_by_estimate
    task = asyncio.get_running_loop().create_task(count)
    _pending[task] = _Unsettled(exchange, outcome, delivered)
    task.add_done_callback(_counted)


def note_prompt(exchange: Exchange) -> None:
    """Find out how long the prompt of an answer under way is, and put it into the answer's note in the journal."""

    async def ask() -> None:
        exchange.note(prompt=await prompt_tokens(exchange))

    task = asyncio.get_running_loop().create_task(ask())
    _noting.add(task)
    task.add_done_callback(_noting.discard)


def _counted(task: asyncio.Task[TokenCount]) -> None:
    waiting = _pending.pop(task)
    exchange, outcome = waiting.exchange, waiting.outcome
    if task.cancelled() or task.exception() is not None:
        logger.warning("request %s is charged by an estimate", exchange.request.request_id)
        waiting.settle_by_estimate()
    else:
        exchange.settle_counted(outcome, _status(outcome), task.result())


def tasks() -> set[asyncio.Task[TokenCount]]:
    """Those that are still asking."""
    return set(_pending)


def _settle_by_estimate() -> None:
    for waiting in list(_pending.values()):
        waiting.settle_by_estimate()


def _status(outcome: str) -> int:
    """499 is what nginx logs for a client that closed the connection."""
    return {"completed": 200, "cancelled": 499}.get(outcome, 502)


def _estimated_prompt(exchange: Exchange) -> int:
    """Never more than what was held for it."""
    return min(exchange.plan.likely_read(None), exchange.prompt_bound)


# -- what is counted -------------------------------------------------------------------------------------------------
async def of_prompt(exchange: Exchange, delivered: int) -> TokenCount:
    return TokenCount(prompt=await prompt_tokens(exchange), completion=delivered)


async def of_prompt_read(exchange: Exchange, seconds: float) -> TokenCount:
    """As much of the prompt as the replica can have read in ``seconds``."""
    prompt = await prompt_tokens(exchange)
    speed = exchange.pool.prompt_per_second
    return TokenCount(prompt=prompt if speed is None else min(prompt, round(speed * seconds)))


async def of_answers(exchange: Exchange, body: bytes, reported: TokenCount) -> TokenCount:
    """Several answers in one piece. The engine reports on the first; the others are counted by their texts, unless they
    too went on to the limit."""
    try:
        told = json.loads(body)
    except ValueError:
        return reported
    if isinstance(told, list):  # whole answers, each with its figures
        found = [count for answer in told if (count := read_figures(json.dumps(answer).encode())) is not None]
        return total(found, exchange.plan.prompts) if found else await of_prompt(exchange, 0)
    first, *others = told.get("choices") or [{}]
    completion = reported.completion
    for choice in others:
        if choice.get("finish_reason") == first.get("finish_reason") == "length":
            completion += reported.completion
        else:
            completion += await _tokens_of(exchange, _text_of(choice)) + 1  # with the one that ended it
    prompt = await prompt_tokens(exchange) if exchange.plan.prompts > 1 else 0
    return TokenCount(prompt=max(prompt, reported.prompt), cached=reported.cached, completion=completion)


def _text_of(choice: dict[str, Any]) -> str:
    message = choice.get("message") or {}
    parts = [choice.get("text"), message.get("reasoning_content"), message.get("content")]
    if calls := message.get("tool_calls"):
        parts.append(json.dumps(calls))
    return "".join(part for part in parts if isinstance(part, str))


async def _tokens_of(exchange: Exchange, text: str) -> int:
    answer = await _ask(exchange, "/tokenize", bodies.write({"content": text}))
    tokens = answer.get("tokens") if answer else None
    return len(tokens) if isinstance(tokens, list) else len(text.encode("utf-8", "replace")) // bodies.BYTES_PER_TOKEN


async def _tokens_of_part(exchange: Exchange, part: Any) -> int:
    """Of a prompt: a text, tokens, one token, or llama-server's own form with pictures beside the text."""
    if isinstance(part, dict):
        pictures, text = part.get(media.WITH_PROMPT), part.get("prompt_string")
        usual = media.USUAL_TOKENS * len(pictures) if isinstance(pictures, list) else 0
        return usual + (await _tokens_of(exchange, text) if isinstance(text, str) else 1)
    if isinstance(part, str):
        return await _tokens_of(exchange, part)
    return len(part) if isinstance(part, list) else 1


async def prompt_tokens(exchange: Exchange) -> int:
    """Of the request as it came, whatever was sent since."""
    prompt = exchange.request.body.get("prompt")
    if exchange.endpoint.name == "completions":
        parts = prompt if isinstance(prompt, list) else [prompt]
        counts: list[int] = [await _tokens_of_part(exchange, part) for part in parts]
        return sum(counts)
    if exchange.endpoint.name == "infill":
        # Of what is too long for its context the engine leaves something out.
        return min(await _tokens_of(exchange, _infilled(exchange.request.body)), exchange.prompt_bound)
    answer = await _ask(exchange, exchange.endpoint.count_path, exchange.raw) if exchange.endpoint.count_path else None
    count = answer.get("input_tokens") if answer else None
    return count if isinstance(count, int) else _estimated_prompt(exchange)


def _infilled(body: dict[str, Any]) -> str:
    """All that is read to fill in what is missing."""
    extra = body.get("input_extra")
    chunks = [chunk for chunk in extra if isinstance(chunk, dict)] if isinstance(extra, list) else []
    parts = [chunk.get(name) for chunk in chunks for name in ("filename", "text")]
    parts += [body.get(name) for name in ("input_prefix", "input_suffix", "prompt")]
    return "\n".join(part for part in parts if isinstance(part, str))


async def told_before(exchange: Exchange) -> int | None:
    """How long the prompt is, before anybody has read it; None when no engine says so at once."""
    path, body = exchange.endpoint.count_path, exchange.raw
    if exchange.endpoint.name == "completions":
        path, body = "/tokenize", bodies.write({"content": exchange.request.body["prompt"]})
    replicas = _replicas(exchange)
    if not path or not replicas:
        return None
    with suppress(ReplicaFailed):
        answer = await upstream.ask(replicas[0].view, path, body, ASK_BEFORE_SECONDS) or {}
        count, tokens = answer.get("input_tokens"), answer.get("tokens")
        return len(tokens) if isinstance(tokens, list) else count if isinstance(count, int) else None
    return None


async def prompt_at_once(exchange: Exchange) -> int:
    """For somebody who is in the middle of an answer: by an estimate, when no engine says it at once."""
    told = await told_before(exchange)
    return told if told is not None else _estimated_prompt(exchange)


async def _ask(exchange: Exchange, path: str, body: bytes) -> dict[str, Any] | None:
    """Any replica can tell: they have the same tokenizer. Where one has died, another one or its successor is there soon."""
    end = monotonic() + PATIENCE_SECONDS
    while True:
        for replica in _replicas(exchange):
            with suppress(ReplicaFailed):
                return await upstream.ask(replica.view, path, body, ASK_SECONDS)
        if monotonic() >= end:
            return None
        await asyncio.sleep(ASK_AGAIN_SECONDS)


def _replicas(exchange: Exchange) -> list[ReplicaSlots]:
    """The one that answered first: what it has read lies in its cache."""
    own = exchange.lease.replica if exchange.lease is not None else None
    serving = [replica for replica in exchange.pool.replicas.values() if replica.serves]
    return sorted(serving, key=lambda replica: (replica is not own, replica.busy))
