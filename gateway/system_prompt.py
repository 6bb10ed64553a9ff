"""A model's own system prompt, for chats that bring none. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway import bodies
from gateway.endpoints import Endpoint

ROLES = ("system", "developer")  # compared, for what a client calls a role may be anything
MESSAGES = "messages"


def belongs_into(endpoint: Endpoint, body: Mapping[str, Any]) -> bool:
    """Whether it is a chat without a system prompt of its own; an empty one is one too."""
    if not endpoint.system_field:
        return False
    if endpoint.system_field != MESSAGES and body.get(endpoint.system_field) is not None:
        return False
    turns = body.get(endpoint.required)
    if not isinstance(turns, list):
        return True
    return not any(isinstance(turn, dict) and turn.get("role") in ROLES for turn in turns)


def put_into(endpoint: Endpoint, body: Mapping[str, Any], prompt: str) -> tuple[dict[str, Any], int]:
    """The body with it, and how many tokens more it has at most."""
    message = {"role": "system", "content": prompt}
    added: Any = [message, *body[MESSAGES]] if endpoint.system_field == MESSAGES else prompt
    return {**body, endpoint.system_field: added}, bodies.size_of([message]) + bodies.TOKENS_PER_MESSAGE
