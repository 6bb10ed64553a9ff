"""How a replica is asked to go on with an answer, so that it reads what the lost one had read and written.

Most often as a chat whose last message is the beginning of the assistant's. Not every template makes the same of that (some close
a thinking block that was never opened, or end the turn), so the engine is asked first what it would read. Where that is
something else, it gets the text itself: what the template makes of the conversation, and the answer so far behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway import bodies, errors, resumption, upstream
from gateway.endpoints import ENDPOINTS, Endpoint
from gateway.resumption import Delivered
from gateway.upstream import ReplicaFailed
from models_app.selectors import ReplicaView

ASK_SECONDS = 10.0
# Of a chat's fields, those that mean nothing to a completion, or something else.
OF_CHATS = frozenset(
    {
        "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "json_schema", "return_progress",
        "chat_template_kwargs", "reasoning_format", "reasoning_effort", "max_completion_tokens",
        "n_predict",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Continuation:
    """``body``: of the client's request. ``pictures``: it has some, for which a template's text says little."""

    endpoint: Endpoint
    body: Mapping[str, Any]
    delivered: Delivered
    tokens_left: int
    pictures: bool

    async def request(self, replica: ReplicaView) -> tuple[str, bytes]:
        """Path and body. Raises ReplicaFailed, or GatewayError if it cannot go on."""
        as_chat = resumption.continuation(self.endpoint, self.body, self.delivered, self.tokens_left)
        before = await self._read_by(replica, self.body) if not self.pictures and self.delivered.said_anything else None
        if before is None:
            return self.endpoint.upstream_path, bodies.write(as_chat)
        after = await self._read_by(replica, as_chat)
        if after is not None and resumption.is_continued(before, after, self.delivered):
            return self.endpoint.upstream_path, bodies.write(as_chat)
        if self.delivered.thoughts or resumption.is_structured(self.body):
            raise errors.upstream_error()
        return ENDPOINTS["completions"].upstream_path, bodies.write(self._as_text(before))

    async def _read_by(self, replica: ReplicaView, body: Mapping[str, Any]) -> str | None:
        """What it would read for that chat; None where it does not say."""
        try:
            told = await upstream.ask(replica, "/apply-template", bodies.write(body), ASK_SECONDS)
        except ReplicaFailed as error:
            if error.unreachable:
                raise
            return None
        prompt = told.get("prompt") if told is not None else None
        return prompt if isinstance(prompt, str) else None

    def _as_text(self, before: str) -> dict[str, Any]:
        kept = {name: value for name, value in self.body.items() if name not in OF_CHATS}
        return {**kept, "prompt": before + self.delivered.to_go_on_after, "max_tokens": self.tokens_left}
