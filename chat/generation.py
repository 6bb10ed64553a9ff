"""Writes one answer: asks the gateway, takes in what the model says, stores it, and ends as done, stopped or error.

A generation belongs to the web process, not to a socket: it goes on when nobody listens, and ends by itself or by ``stop``.

    _read       one task: the gateway's stream into the recording; ends, fails, or is cancelled by stop
    _render     one task: HTML of the text so far, at most every 100 ms and at most a tenth of the time
    _keep       one task: the text so far into the database once a second
    run         starts the three, then says how it ended: stored first, told second
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from django.utils import translation
from django.utils.translation import gettext as _

from accounts.callers import Caller
from accounts.models import new_request_id
from chat import markdown, services
from chat.live import Event, Live, Recording
from chat.live import live as this_process
from chat.models import Message
from chat.saving import Saver, saver
from chat.services import Exchange, Snapshot
from chat.sse import EventParser, EventTooLong
from gateway.errors import GatewayError
from gateway.exchange import Answer, InferenceRequest
from gateway.inference import infer

logger = logging.getLogger(__name__)

LONGEST_ANSWER = 400_000  # characters, reasoning included
SAVE_EVERY = 1.0  # seconds
RENDER_EVERY = 0.1  # seconds, at least
RENDER_SHARE = 10  # rendering may take one part in so many of the time
RENDER_BYTES = 200_000  # of HTML a second, at most: a socket that reads slowly must not pile up more
LONG_TEXT = 4_000  # characters from which rendering leaves the event loop
KEPT_FOR = 60.0  # seconds an ended recording stays in memory
STATS = ("usage", "timings", "finish_reason", "cut_to", "model")  # of a done event, kept with the message
RETRYABLE = frozenset(
    {
        "rate_limit_exceeded",
        "model_not_available",
        "overloaded",
        "upstream_error",
        "service_unavailable",
        "internal_error",
        "interrupted",
    }
)

Infer = Callable[[InferenceRequest], Awaitable[Answer]]


class EngineError(Exception):
    """The stream told of an error, or broke off."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code)
        self.code = code
        self.message = message


class AnswerTooLong(Exception):
    pass


class Generation:
    """Made by :func:`start`. ``recording`` is what followers read."""

    def __init__(self, exchange: Exchange, caller: Caller, params: dict[str, Any], language: str) -> None:
        self.recording = Recording(exchange.answer, exchange.conversation)
        self.request = InferenceRequest(
            endpoint="chat.completions",
            body=_body(exchange, params),
            caller=caller,
            source="chat",
            request_id=new_request_id(),
            stream=True,
        )
        self.request.on_queue = self._queued
        self.asked_model = self.model = exchange.model
        self.language = language
        self.live: Live = this_process
        self.saver: Saver = saver
        self.infer: Infer = infer
        self._parser = EventParser()
        self._changed = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._stopped = False
        self._started_at = time.monotonic()
        self._first_token_at: float | None = None
        self._usage: dict[str, Any] = {}
        self._speed: float | None = None
        self._finish_reason = ""
        self._affordable: int | None = None  # tokens, when the balance pays for fewer than the model would make

    # -- from outside --------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """Ends it as stopped: the engine is told by closing the stream, the text so far is kept."""
        self._stopped = True
        if self._reader is not None:
            self._reader.cancel()

    async def run(self) -> None:
        """To the end, whatever happens; the recording always gets its ending."""
        translation.activate(self.language)  # of this task only
        self._reader = asyncio.create_task(self._read())
        if self._stopped:
            self._reader.cancel()
        helpers = [asyncio.create_task(self._render()), asyncio.create_task(self._keep())]
        await asyncio.wait({self._reader}, timeout=services.LONGEST_GENERATION.total_seconds())
        if not self._reader.done():
            self._reader.cancel()
            await asyncio.wait({self._reader})
        for helper in helpers:
            helper.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        await self._end(self._outcome())

    # -- reading -------------------------------------------------------------------------------------------------------
    async def _read(self) -> None:
        answer = await self.infer(self.request)
        if answer.stream is None or answer.status >= 400:
            raise _refusal(answer.body)
        self._affordable = answer.affordable
        self.model = answer.model or self.asked_model
        self._tell({"type": "started", "model": self.model})
        try:
            async for chunk in answer.stream:
                for data in self._parser.feed(chunk):
                    self._take(data)
        finally:
            close = getattr(answer.stream, "aclose", None)
            if close is not None:
                await close()
        if not self._finish_reason:
            raise EngineError("upstream_error", _("The model's server broke off in the middle of the answer."))

    async def _queued(self, position: int, estimate_ms: int, loading: bool = False) -> bool:
        self._tell({"type": "queued", "position": position, "estimate_ms": estimate_ms, "loading": loading})
        return True

    def _tell(self, event: Event) -> None:
        self.recording.set_phase(event)
        self.live.wake(self.recording.conversation)

    def _take(self, data: str) -> None:
        """One event of the stream. What is not understood is passed over: engines add fields."""
        if data == "[DONE]":
            self._finish_reason = self._finish_reason or "stop"
            return
        event = _json_object(data)
        if "error" in event:
            raise _refusal(data.encode())
        self._take_figures(event)
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self._take_text("reasoning", delta.get("reasoning_content"))
            self._take_text("delta", delta.get("content"))
        if isinstance(choice.get("finish_reason"), str):
            self._finish_reason = choice["finish_reason"]

    def _take_text(self, kind: Any, text: object) -> None:
        if not isinstance(text, str) or not text:
            return
        if self._first_token_at is None:
            self._first_token_at = time.monotonic()
        self.recording.transcript.append(kind, services.storable(text))
        if self.recording.transcript.seq > LONGEST_ANSWER:
            raise AnswerTooLong
        self._changed.set()
        self.live.wake(self.recording.conversation)

    def _take_figures(self, event: dict[str, Any]) -> None:
        progress = event.get("prompt_progress")
        if isinstance(progress, dict) and self._first_token_at is None:
            done, total = progress.get("processed"), progress.get("total")
            if isinstance(done, int) and isinstance(total, int) and total > 0:
                self._tell({"type": "progress", "phase": "prompt", "fraction": round(min(done / total, 1), 3)})
        if isinstance(usage := event.get("usage"), dict):
            self._usage = {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if name in usage}
        timings = event.get("timings")
        if isinstance(timings, dict) and isinstance(timings.get("predicted_per_second"), int | float):
            self._speed = float(timings["predicted_per_second"])

    # -- beside reading ------------------------------------------------------------------------------------------------
    async def _render(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            took, size = 0.0, 0
            if self.live.is_followed(self.recording.conversation):
                took, size = await self._render_now()
            await asyncio.sleep(max(RENDER_EVERY, took * RENDER_SHARE, size / RENDER_BYTES))

    async def _render_now(self) -> tuple[float, int]:
        text, _reasoning, seq = self.recording.transcript.snapshot()
        started = time.perf_counter()
        html = markdown.render(text) if len(text) < LONG_TEXT else await asyncio.to_thread(markdown.render, text)
        took = time.perf_counter() - started
        if text:
            self.recording.rendered = seq, html
            self.live.wake(self.recording.conversation)
        return took, len(html)

    async def _keep(self) -> None:
        kept = 0
        while True:
            await asyncio.sleep(SAVE_EVERY)
            text, reasoning, seq = self.recording.transcript.snapshot()
            if seq == kept:
                continue
            kept = seq
            running = Snapshot(self.recording.message, Message.State.RUNNING, text, reasoning)
            if not await self.saver.save(running):
                self.stop()  # deleted: nobody can ever read this answer

    # -- the end -------------------------------------------------------------------------------------------------------
    def _outcome(self) -> Event:
        """What became of the reader."""
        reader = self._reader
        if reader is None or reader.cancelled():
            if self._stopped:
                return self._done(Message.State.STOPPED)
            return _error("timeout", _("The answer took too long and was ended."), retry=True)
        match reader.exception():
            case None:
                return self._done(Message.State.DONE)
            case AnswerTooLong():
                self._finish_reason = "length"
                return self._done(Message.State.STOPPED)
            case GatewayError() as error:
                return _error(error.code, _with_advice(error.code, error.message), retry=error.code in RETRYABLE)
            case EngineError() as error:
                return _error(error.code, _with_advice(error.code, error.message), retry=error.code in RETRYABLE)
            case EventTooLong():
                return _error("upstream_error", _("The model's server sent something unreadable."), retry=True)
            case error:
                logger.error("an answer failed", exc_info=error, extra={"request_id": self.request.request_id})
                return _error("internal_error", _("Something went wrong here; the log says what."), retry=True)

    def _done(self, state: str) -> Event:
        """``cut_to`` is there only when the answer ended where the balance did, ``model`` when another one answered."""
        done: Event = {
            "type": "done",
            "state": str(state),
            "usage": self._usage,
            "timings": self._timings(),
            "finish_reason": self._finish_reason,
        }
        if state == Message.State.DONE and self._balance_ended_it():
            done["cut_to"] = self._affordable
        if self.model != self.asked_model:
            done["model"] = self.model
        return done

    def _balance_ended_it(self) -> bool:
        """Not the end of the context, which is a length as well but comes earlier."""
        if self._affordable is None or self._finish_reason != "length":
            return False
        made = self._usage.get("completion_tokens")
        return not isinstance(made, int) or made >= self._affordable

    def _timings(self) -> dict[str, Any]:
        now = time.monotonic()
        first = self._first_token_at
        speed, made = self._speed, self._usage.get("completion_tokens")
        if speed is None and first is not None and isinstance(made, int) and made > 1 and now > first:
            speed = (made - 1) / (now - first)
        return {
            "tokens_per_second": None if speed is None else round(speed, 2),
            "first_token_ms": None if first is None else round((first - self._started_at) * 1000),
            "duration_ms": round((now - self._started_at) * 1000),
        }

    async def _end(self, ending: Event) -> None:
        await self._render_now()
        text, reasoning, _seq = self.recording.transcript.snapshot()
        failed = ending["type"] == "error"
        snapshot = Snapshot(
            message=self.recording.message,
            state=Message.State.ERROR if failed else ending["state"],
            text=text,
            reasoning=reasoning,
            error={name: ending[name] for name in ("code", "message", "retry")} if failed else None,
            stats=None if failed else {name: ending[name] for name in STATS if name in ending},
        )
        await self.saver.save(snapshot)
        self.recording.ending = ending if failed else {**ending, "html": self.recording.rendered[1]}
        self.live.release(self.recording.message)
        self.live.wake(self.recording.conversation)


# -- helpers without state -----------------------------------------------------------------------------------------------
def _body(exchange: Exchange, params: dict[str, Any]) -> dict[str, Any]:
    return {
        **params,
        "model": exchange.model,
        "messages": list(exchange.history),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "cache_prompt": True,
    }


def _json_object(data: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        value = json.loads(data)
        if isinstance(value, dict):
            return value
    return {}


def _refusal(body: bytes | None) -> EngineError:
    """The error that an OpenAI-style body tells of."""
    error = _json_object((body or b"").decode("utf-8", "replace")).get("error")
    told = error if isinstance(error, dict) else {}
    code, message = told.get("code"), told.get("message")
    return EngineError(
        code if isinstance(code, str) and code else "upstream_error",
        message if isinstance(message, str) and message else _("The model's server failed while answering."),
    )


def _with_advice(code: str, message: str) -> str:
    if code != "context_length_exceeded":
        return message
    return message + " " + _("Begin a new conversation, or choose a model with a longer context.")


def _error(code: str, message: str, *, retry: bool) -> Event:
    return {"type": "error", "code": code, "message": message, "retry": retry}


# -- the generations of this process -------------------------------------------------------------------------------------
class Generations:
    """Keeps the tasks: the event loop itself would forget them."""

    def __init__(self) -> None:
        self._running: dict[Any, tuple[Generation, asyncio.Task[None]]] = {}

    def start(self, generation: Generation, accepted: Event) -> None:
        message = generation.recording.message
        generation.live.begin(generation.recording, accepted)
        task = asyncio.create_task(generation.run(), name=f"chat answer {message}")
        self._running[message] = generation, task
        task.add_done_callback(lambda _task: self._ended(generation))

    def stop(self, message: Any) -> bool:
        """False when it does not run here."""
        if message not in self._running:
            return False
        self._running[message][0].stop()
        return True

    def _ended(self, generation: Generation) -> None:
        message = generation.recording.message
        _generation, task = self._running.pop(message)
        generation.live.release(message)
        if not task.cancelled() and (error := task.exception()):
            logger.error("an answer could not be ended", exc_info=error)
        asyncio.get_running_loop().call_later(KEPT_FOR, generation.live.forget, message)


generations = Generations()
