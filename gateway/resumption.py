"""Going on with a streamed chat answer whose replica was lost in the middle of it.

Another replica gets the same messages, and as the last one the assistant's with the text that the client has already
(llama-server then writes on: "assistant prefill"). Its events are made to fit those that went before: one id, one beginning,
figures of the whole answer.

It is cut between two events only, for a text cut within a word or a character leads a model astray. What cannot be told by its
text alone cannot be gone on with: calls of tools, answers that keep to a grammar of the client's, several at once, probabilities.
(A JSON schema is no hindrance: the engine takes its grammar through the beginning.)

Nothing here does I/O.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from gateway.bodies import Plan
from gateway.endpoints import Endpoint
from gateway.usage import DONE, EVENT_END

MOST = 2  # times one answer goes on elsewhere
# Events are kept as they came until so many bytes are together: most answers are complete before.
KEPT_BYTES = 16 * 1024
# Fields that make an answer more than its text, unless they are empty, and those that say how an assistant's turn begins.
MORE_THAN_TEXT = (
    "tools", "functions", "grammar", "logprobs", "top_logprobs", "n_probs", "return_tokens", "audio",
)  # fmt: skip
OWN_BEGINNING = ("add_generation_prompt", "continue_final_message", "prefill_assistant")
SAY_DONE = frozenset({"chat.completions", "completions"})  # streams, when nothing more comes
DATA = b"data:"


def is_possible(endpoint: Endpoint, body: Mapping[str, Any], plan: Plan) -> bool:
    """Whether an answer to this request could go on elsewhere."""
    if endpoint.name != "chat.completions" or not plan.stream or plan.answers > 1:
        return False
    if any(body.get(name) for name in MORE_THAN_TEXT) or any(name in body for name in OWN_BEGINNING):
        return False
    last = body["messages"][-1] if body["messages"] else {}
    return last.get("role") != "assistant" or isinstance(last.get("content"), str)


def is_structured(body: Mapping[str, Any]) -> bool:
    """Whether the answer must have a form that only a chat can be held to."""
    wanted = body.get("response_format")
    return bool(body.get("json_schema")) or (isinstance(wanted, dict) and wanted.get("type") != "text")


def is_continued(before: str, after: str, delivered: Delivered) -> bool:
    """Whether a replica that reads ``after`` reads what one that had read ``before`` has written since."""
    if not delivered.thoughts:
        return after == before + delivered.to_go_on_after
    # What stands around thoughts is the template's affair.
    return after.endswith(delivered.to_go_on_after) and delivered.thoughts.strip() in after


def continuation(endpoint: Endpoint, body: Mapping[str, Any], delivered: Delivered, tokens_left: int) -> dict[str, Any]:
    """The chat that goes on after what was delivered, with at most so many tokens."""
    text, thoughts = delivered.to_go_on_after, delivered.thoughts
    limits = dict.fromkeys([name for name in endpoint.limit_fields if body.get(name) is not None], tokens_left)
    changed = {**body, **(limits or {endpoint.limit_fields[0]: tokens_left})}
    if not delivered.said_anything:
        return changed
    thought = {"reasoning_content": thoughts} if thoughts else {}
    messages = list(body["messages"])
    last = messages[-1]
    if last.get("role") == "assistant" and isinstance(last.get("content"), str):
        # The client had the model go on with a text of its own.
        messages[-1] = {**last, **thought, "content": last["content"] + text}
    else:
        messages.append({"role": "assistant", "content": text, **thought})
    return {**changed, "messages": messages}


def _parsed(event: bytes) -> dict[str, Any] | None:
    """The JSON of an event; None for comments and the end."""
    if not event.startswith(DATA):
        return None
    try:
        found = json.loads(event[len(DATA) :])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _delta(event: Mapping[str, Any]) -> dict[str, Any]:
    choices = event.get("choices")
    delta = choices[0].get("delta") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    return delta if isinstance(delta, dict) else {}


class Delivered:
    """What the client has of an answer: its text, and what every event of it repeats."""

    __slots__ = ("_kept", "_size", "calls_tools", "common", "text", "thoughts")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._size = 0
        self.text = self.thoughts = ""
        self.common: dict[str, Any] = {}
        self.calls_tools = False

    def add(self, events: bytes) -> None:
        """Whole ones."""
        self._kept.append(events)
        self._size += len(events)
        if self._size > KEPT_BYTES:
            self.read()

    def read(self) -> None:
        """What was kept as it came. The attributes are true after it."""
        events = b"".join(self._kept).split(EVENT_END)
        self._kept, self._size = [], 0
        texts, thoughts = [], []
        for event in events:
            if (told := _parsed(event)) is None:
                continue
            if not self.common:
                self.common = {name: told[name] for name in ("id", "created", "system_fingerprint") if name in told}
            delta = _delta(told)
            if isinstance(text := delta.get("content"), str):
                texts.append(text)
            if isinstance(thought := delta.get("reasoning_content"), str):
                thoughts.append(thought)
            self.calls_tools = self.calls_tools or bool(delta.get("tool_calls"))
        self.text += "".join(texts)
        self.thoughts += "".join(thoughts)

    @property
    def to_go_on_after(self) -> str:
        """A space at the end would be one token, which models write as the beginning of the next word's."""
        return self.text.rstrip(" \t")

    @property
    def said_anything(self) -> bool:
        return bool(self.to_go_on_after or self.thoughts)


class Joint:
    """Makes the events of a continuation fit those that went before.

    ``prompt``: tokens of the request without what was delivered; ``before``: tokens delivered until now.
    """

    __slots__ = ("_before", "_common", "_prompt", "_rest", "_space", "_usage_asked")

    def __init__(self, delivered: Delivered, prompt: int, before: int, *, usage_asked: bool = False) -> None:
        self._common = delivered.common
        self._space = delivered.text[len(delivered.to_go_on_after) :]  # that comes again
        self._prompt = prompt
        self._before = before
        self._usage_asked = usage_asked  # which a completion has in any case, in the event that ends it
        self._rest = b""

    def fit(self, chunk: bytes) -> bytes:
        """Whole events only; what a chunk ends with half of comes with the next one."""
        events, _end, self._rest = (self._rest + chunk).rpartition(EVENT_END)
        fitted = [self._fitted(event) for event in events.split(EVENT_END) if event]
        return b"".join(event + EVENT_END for event in fitted if event)

    def _fitted(self, event: bytes) -> bytes:
        told = _parsed(event)
        if told is None or "error" in told:
            return event
        if "prompt_progress" in told or self._only_begins(told):
            return b""
        usage = _as_chat(told) if told.get("object") == "text_completion" else None
        told |= self._common
        self._leave_out_space(told)
        events = [told]
        if usage is not None and self._usage_asked:  # an event of its own, which is the last and has all figures
            events.append({**told, "choices": [], "usage": usage})
            told.pop("timings", None)
        for one in events:
            self._correct(one)
        return EVENT_END.join(b"data: " + json.dumps(one, separators=(",", ":")).encode() for one in events)

    def _leave_out_space(self, told: dict[str, Any]) -> None:
        delta = _delta(told)
        text = delta.get("content")
        if self._space and isinstance(text, str) and text:
            again = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._space, text, strict=False)))
            delta["content"] = text[again:]
            self._space = self._space[again:] if again == len(text) else ""

    def _only_begins(self, told: Mapping[str, Any]) -> bool:
        """The event that says whose turn it is: once is enough."""
        delta = _delta(told)
        finished = told["choices"][0].get("finish_reason") if delta else None
        return "role" in delta and not delta.get("content") and not finished and bool(self._common)

    def _correct(self, told: dict[str, Any]) -> None:
        if isinstance(usage := told.get("usage"), dict):
            answer = self._before + _number(usage.get("completion_tokens"))
            usage |= {"prompt_tokens": self._prompt, "completion_tokens": answer, "total_tokens": self._prompt + answer}
            if isinstance(details := usage.get("prompt_tokens_details"), dict):
                details["cached_tokens"] = min(_number(details.get("cached_tokens")), self._prompt)
        if isinstance(timings := told.get("timings"), dict):
            cached = min(_number(timings.get("cache_n")), self._prompt)
            answer = self._before + _number(timings.get("predicted_n"))
            timings |= {"cache_n": cached, "prompt_n": self._prompt - cached, "predicted_n": answer}


def _as_chat(told: dict[str, Any]) -> dict[str, Any] | None:
    """Makes an event of a completion one of a chat. Its usage, which no event of a chat with a choice has."""
    [choice] = told["choices"]
    text, reason = choice.get("text"), choice.get("finish_reason")
    delta = {"content": text} if text or reason is None else {}
    told["object"] = "chat.completion.chunk"
    told["choices"] = [{"finish_reason": reason, "index": 0, "delta": delta}]
    usage = told.pop("usage", None)
    return usage if isinstance(usage, dict) else None


def _number(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def ending(common: Mapping[str, Any], model: str, reason: str, usage: tuple[int, int] | None) -> bytes:
    """The last events of an answer whose replica was lost when nothing was missing but them. ``usage``: tokens of prompt and
    answer, where the client asked for them. Without a ``reason`` the client has had it."""
    told = {**common, "model": model, "object": "chat.completion.chunk"}
    events: list[dict[str, Any]] = []
    if reason:
        events.append({**told, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    if usage is not None:
        prompt, answer = usage
        figures = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        events.append({**told, "choices": [], "usage": figures})
    return b"".join(b"data: " + json.dumps(event).encode() + EVENT_END for event in events) + DONE + EVENT_END
