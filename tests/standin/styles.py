"""What the stand-in's answers look like, in each of the engine's forms."""

from __future__ import annotations

import time
import uuid


class Style:
    object_name = ""
    says_done = True  # "[DONE]" ends its streams

    def __init__(self, model: str) -> None:
        self.model = model
        self.id = "chatcmpl-" + uuid.uuid4().hex
        self.created = int(time.time())
        self.prompt = self.completion = self.cached = 0
        self.prompt_per_second = 1000.0
        self.answers = 1
        self.finish = "stop"
        self.usage_asked = False

    def base(self, choices: list, name: str) -> dict:
        return {
            "choices": choices,
            "created": self.created,
            "id": self.id,
            "model": self.model,
            "system_fingerprint": "stand-in",
            "object": name,
        }

    def figures(self) -> dict:
        usage = {
            "completion_tokens": self.completion,
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }
        return {"usage": usage, "timings": timings(self)}

    def for_each_answer(self, events: list[dict]) -> list[dict]:
        """Taking turns, as the engine's slots do."""
        return [self.of_answer(event, index) for event in events for index in range(self.answers)]

    def closings(self) -> list[dict]:
        """The end of each answer, with its figures."""
        return [self.of_answer(event, index) for index in range(self.answers) for event in self.closing()]

    def of_answer(self, event: dict, index: int) -> dict:
        if not index or not event.get("choices"):
            return event
        return {**event, "choices": [{**choice, "index": index} for choice in event["choices"]]}

    def opening(self) -> list[dict]:
        return []

    def reasoning_delta(self, text: str) -> dict:
        raise NotImplementedError


class ChatStyle(Style):
    def chunk(self, delta: dict, finish: str | None = None) -> dict:
        return self.base([{"finish_reason": finish, "index": 0, "delta": delta}], "chat.completion.chunk")

    def opening(self) -> list[dict]:
        return [self.chunk({"role": "assistant", "content": None})]

    def delta(self, text: str) -> dict:
        return self.chunk({"content": text})

    def reasoning_delta(self, text: str) -> dict:
        return self.chunk({"reasoning_content": text})

    def closing(self) -> list[dict]:
        last = self.chunk({}, self.finish)
        if not self.usage_asked:
            return [{**last, "timings": self.figures()["timings"]}]
        return [last, {**self.base([], "chat.completion.chunk"), **self.figures()}]

    def whole(self, text: str, reasoning: str) -> dict:
        message = {"role": "assistant", "content": text} | ({"reasoning_content": reasoning} if reasoning else {})
        choices = [{"finish_reason": self.finish, "index": index, "message": message} for index in range(self.answers)]
        return {**self.base(choices, "chat.completion"), **self.figures()}


class TextStyle(Style):
    def delta(self, text: str, finish: str | None = None) -> dict:
        return self.base([{"text": text, "index": 0, "logprobs": None, "finish_reason": finish}], "text_completion")

    def closing(self) -> list[dict]:
        return [{**self.delta("", self.finish), **self.figures()}]

    def whole(self, text: str, reasoning: str) -> dict:
        return {**self.delta(text, self.finish), **self.figures()}


class MessagesStyle(Style):
    """Anthropic's: each event has a name, and what the prompt was stands in the first."""

    says_done = False

    def usage(self) -> dict:
        read = self.prompt - self.cached
        return {"input_tokens": read, "cache_read_input_tokens": self.cached, "output_tokens": self.completion}

    def message(self, content: list[dict], reason: str | None) -> dict:
        told = {"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content}
        return {**told, "stop_reason": reason, "stop_sequence": None, "usage": self.usage()}

    @property
    def reason(self) -> str:
        return "max_tokens" if self.finish == "length" else "end_turn"

    def opening(self) -> list[dict]:
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return [{"type": "message_start", "message": self.message([], None)}, block]

    def delta(self, text: str) -> dict:
        return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}

    def closing(self) -> list[dict]:
        end = {"type": "message_delta", "delta": {"stop_reason": self.reason, "stop_sequence": None}}
        usage = {"output_tokens": self.completion}
        return [{"type": "content_block_stop", "index": 0}, {**end, "usage": usage}, {"type": "message_stop"}]

    def whole(self, text: str, reasoning: str) -> dict:
        return self.message([{"type": "text", "text": text}], self.reason)


class NativeStyle(Style):
    says_done = False
    fields: tuple[str, ...] | list[str] = ()  # of the last event, if not all

    def of_answer(self, event: dict, index: int) -> dict:
        return {**event, "index": index} if "index" in event else event

    def delta(self, text: str) -> dict:
        return {"index": 0, "content": text, "tokens": [], "stop": False, "tokens_evaluated": self.prompt}

    def last(self, text: str) -> dict:
        every = {
            "index": 0,
            "content": text,
            "tokens": [],
            "stop": True,
            "model": self.model,
            "tokens_predicted": self.completion,
            "tokens_evaluated": self.prompt,
            "timings": timings(self),
        }
        return {name: value for name, value in every.items() if not self.fields or name in self.fields}

    def whole(self, text: str, reasoning: str) -> dict | list[dict]:
        found = [self.of_answer(self.last(text), index) for index in range(self.answers)]
        return found if self.answers > 1 else found[0]

    def closing(self) -> list[dict]:
        return [self.last("")]


def timings(style: Style) -> dict:
    read = style.prompt - style.cached
    return {
        "cache_n": style.cached,
        "prompt_n": read,
        "prompt_ms": 1000.0 * read / style.prompt_per_second,
        "prompt_per_token_ms": 1000.0 / style.prompt_per_second,
        "prompt_per_second": style.prompt_per_second,
        "predicted_n": style.completion,
        "predicted_ms": 10.0 * style.completion,
        "predicted_per_token_ms": 10.0,
        "predicted_per_second": 100.0,
    }
