"""What the protocols say in a way that engines pass over, said in the way that they understand. Pure.

llama-server reads ``tool_choice`` as one word: a tool named there counts as no wish at all (OpenAI), or as any tool (Anthropic).
So the named one is left as the only tool, and some tool is required, which is how libraries get answers in a given form. Of
``/responses`` it does not read ``text.format``, but ``response_format``, as in chat completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

from gateway import errors
from gateway.endpoints import Endpoint
from gateway.errors import Protocol

ANTHROPIC_TOOL = "tool"
OPENAI_TOOL = "function"


def understood(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """The same object when the engine understands it as it is. Raises GatewayError."""
    return _with_one_tool(endpoint, _with_response_format(endpoint, body))


def _with_one_tool(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    choice, tools = body.get("tool_choice"), body.get("tools")
    name = _named(choice)
    if name is None or not isinstance(tools, list):
        return body
    named = [tool for tool in tools if isinstance(tool, dict) and _name_of(tool) == name]
    if not named:
        raise errors.invalid(_("“tool_choice” names a tool that is not in “tools”."), "tool_choice")
    if endpoint.protocol is Protocol.ANTHROPIC:
        return body if len(tools) == 1 else {**body, "tools": named}
    # One call of it, as OpenAI answers.
    return {"parallel_tool_calls": False, **body, "tools": named, "tool_choice": "required"}


def _named(choice: Any) -> str | None:
    if not isinstance(choice, dict) or choice.get("type") not in (ANTHROPIC_TOOL, OPENAI_TOOL):
        return None
    return _name_of(choice)


def _name_of(given: Mapping[str, Any]) -> str | None:
    """In chat completions it stands one level deeper than elsewhere."""
    inner = given.get("function")
    name = (inner if isinstance(inner, dict) else given).get("name")
    return name if isinstance(name, str) else None


def _with_response_format(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    text = body.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if endpoint.protocol is not Protocol.RESPONSES or not isinstance(wanted, dict) or "response_format" in body:
        return body
    kind = wanted.get("type")
    if kind == "json_schema":
        schema = {name: value for name, value in wanted.items() if name != "type"}
        return {**body, "response_format": {"type": kind, "json_schema": schema}}
    return body if kind == "text" else {**body, "response_format": {"type": kind}}
