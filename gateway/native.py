"""``POST /api/v1/models/<name>/chat``: our own short form of a chat completion."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from accounts.callers import Caller
from gateway import errors, sse
from gateway.exchange import Answer, InferenceRequest
from gateway.inference import infer
from gateway.slots import OnQueue
from llmplatform.lib.api.serializers import StrictSerializer

NEW = "new"  # as ``conversation``: begin one; the answer has its id


class NativeChatSerializer(StrictSerializer):
    """The body of the request."""

    message = serializers.CharField(trim_whitespace=False)
    max_tokens = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)
    temperature = serializers.FloatField(min_value=0, max_value=5, required=False)
    top_p = serializers.FloatField(min_value=0, max_value=1, required=False)
    stream = serializers.BooleanField(default=False)
    conversation = serializers.CharField(required=False, max_length=100)


class Conversations(Protocol):
    """Where earlier turns are kept. The chat application registers itself here; this one knows nothing of it."""

    async def history(self, user_id: int, conversation: str) -> list[dict[str, str]]:
        """The messages so far; none for ``NEW``. Raises GatewayError for one that is unknown or somebody else's."""

    async def append(self, user_id: int, conversation: str, model: str, question: str, answer: str) -> str:
        """Keeps a turn and returns the conversation's id; ``NEW`` begins one."""


class _Registry:
    conversations: Conversations | None = None


registry = _Registry()


def _store() -> Conversations:
    if registry.conversations is None:
        raise errors.invalid(_("Conversations are not available here."), "conversation")
    return registry.conversations


@dataclass(slots=True)
class NativeChat:
    """One request, read and checked."""

    model: str
    fields: dict[str, Any]
    caller: Caller
    request_id: str
    on_queue: OnQueue | None = None
    deadline: float | None = None
    early: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, model: str, body: dict[str, Any], caller: Caller, request_id: str) -> NativeChat:
        serializer = NativeChatSerializer(data=body)
        if not serializer.is_valid():
            error = errors.invalid(_("Some fields are not right; details says which."))
            error.details = {name: [str(text) for text in texts] for name, texts in serializer.errors.items()}
            raise error
        return cls(model, dict(serializer.validated_data), caller, request_id)

    async def answer(self) -> Answer:
        stream: bool = self.fields["stream"]
        inner = await infer(
            InferenceRequest(
                "chat.completions",
                await self._body(),
                self.caller,
                request_id=self.request_id,
                on_queue=self.on_queue,
                deadline=self.deadline,
                early=self.early,
            )
        )
        if stream and inner.stream is not None:
            return Answer(200, inner.headers, stream=NativeStream(self, inner), replica=inner.replica)
        told = json.loads(inner.body or b"{}")
        choice = next(_choices(told), {})
        message = choice.get("message")
        if not isinstance(message, dict):
            raise errors.upstream_error()
        text = message.get("content") or ""
        await self.remember(text)
        whole = self.summary(inner, text, told, choice.get("finish_reason"))
        return Answer(200, inner.headers, body=_dump(whole), replica=inner.replica)

    async def _body(self) -> dict[str, Any]:
        conversation = self.fields.get("conversation")
        history = await _store().history(self.caller.user_id, conversation) if conversation else []
        names = ("max_tokens", "temperature", "top_p")
        body: dict[str, Any] = {name: self.fields[name] for name in names if name in self.fields}
        body |= {"model": self.model, "messages": [*history, {"role": "user", "content": self.fields["message"]}]}
        if self.fields["stream"]:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    async def remember(self, text: str) -> None:
        if conversation := self.fields.get("conversation"):
            question = self.fields["message"]
            kept = await _store().append(self.caller.user_id, conversation, self.model, question, text)
            self.fields["conversation"] = kept

    def summary(self, inner: Answer, text: str, told: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        usage = told.get("usage") or {}
        timings = told.get("timings") or {}
        return {
            "model": inner.model,
            "response": text,
            "finish_reason": finish_reason,
            "usage": {name: usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens", "total_tokens")},
            "tokens_per_second": round(timings.get("predicted_per_second") or 0, 2),
            "request_id": inner.headers["x-request-id"],
        } | ({"conversation": self.fields["conversation"]} if "conversation" in self.fields else {})


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _choices(told: Any) -> Iterator[dict[str, Any]]:
    """Engines may break off with anything."""
    choices = told.get("choices") if isinstance(told, dict) else None
    yield from (choice for choice in choices if isinstance(choice, dict)) if isinstance(choices, list) else ()


class NativeStream:
    """Events ``{"delta": text}``, then one with ``"done": true`` and the figures; an error ends it with ``event: error``."""

    def __init__(self, chat: NativeChat, inner: Answer) -> None:
        self._chat = chat
        self._inner = inner
        self._events = self._translated()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._events

    async def __anext__(self) -> bytes:
        return await anext(self._events)

    async def aclose(self) -> None:
        try:
            await self._events.aclose()
        finally:
            await self._inner.aclose()

    async def _translated(self) -> AsyncGenerator[bytes]:
        texts: list[str] = []
        finish_reason, last = None, dict[str, Any]()
        assert self._inner.stream is not None  # noqa: S101 - asked for a stream
        async for event in sse.events(self._inner.stream):
            if "error" in event:
                yield errors.as_event(errors.upstream_error(), errors.Protocol.REST)
                return
            last = event
            for choice in _choices(event):
                finish_reason = choice.get("finish_reason") or finish_reason
                if text := (choice.get("delta") or {}).get("content"):
                    texts.append(text)
                    yield b"data: " + _dump({"delta": text}) + b"\n\n"
        whole = "".join(texts)
        await self._chat.remember(whole)
        yield (
            b"data: " + _dump({"done": True, **self._chat.summary(self._inner, whole, last, finish_reason)}) + b"\n\n"
        )
