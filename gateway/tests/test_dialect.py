"""What engines would pass over: a tool that is named, and the form of an answer of ``/responses``."""

from __future__ import annotations

import pytest

from gateway import dialect
from gateway.endpoints import ENDPOINTS
from gateway.errors import GatewayError

CHAT, RESPONSES, MESSAGES = (ENDPOINTS[name] for name in ("chat.completions", "responses", "messages"))
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tools(endpoint, *names: str) -> list:
    if endpoint is CHAT:
        return [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in names]
    return [{"type": "function", "name": name, "parameters": SCHEMA} for name in names]


NAMED = [
    (CHAT, {"type": "function", "function": {"name": "b"}}),
    (RESPONSES, {"type": "function", "name": "b"}),
    (MESSAGES, {"type": "tool", "name": "b"}),
]


@pytest.mark.parametrize(("endpoint", "choice"), NAMED)
def test_a_named_tool_is_the_only_one_left(endpoint, choice) -> None:
    body = {"tools": tools(endpoint, "a", "b", "c"), "tool_choice": choice}
    assert dialect.understood(endpoint, body)["tools"] == tools(endpoint, "b")
    assert body["tools"] == tools(endpoint, "a", "b", "c")  # the client's own body is not touched


@pytest.mark.parametrize(("endpoint", "choice"), NAMED[:2])
def test_and_is_required_once(endpoint, choice) -> None:
    body = dialect.understood(endpoint, {"tools": tools(endpoint, "b"), "tool_choice": choice})
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    several = {"tools": tools(endpoint, "b"), "tool_choice": choice, "parallel_tool_calls": True}
    assert dialect.understood(endpoint, several)["parallel_tool_calls"] is True


@pytest.mark.parametrize(("endpoint", "choice"), NAMED)
def test_a_name_that_is_no_tool_is_refused(endpoint, choice) -> None:
    with pytest.raises(GatewayError) as error:
        dialect.understood(endpoint, {"tools": tools(endpoint, "a"), "tool_choice": choice})
    assert (error.value.status, error.value.param) == (400, "tool_choice")


@pytest.mark.parametrize(
    "choice", ["required", "auto", None, 1, {}, {"type": "any"}, {"type": "function"}, {"name": "a"}]
)
@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, MESSAGES])
def test_anything_else_stays_as_it_came(endpoint, choice) -> None:
    body = {"tools": tools(endpoint, "a", "b"), "tool_choice": choice, "text": {"format": {"type": "text"}}}
    assert dialect.understood(endpoint, body) is body


@pytest.mark.parametrize("given", [{}, {"tools": None}, {"tools": {"a": 1}}])
def test_a_choice_without_tools_is_the_engines_affair(given) -> None:
    body = {**given, "tool_choice": {"type": "function", "function": {"name": "a"}}}
    assert dialect.understood(CHAT, body) is body


def test_the_form_of_a_response() -> None:
    wanted = {"type": "json_schema", "name": "place", "strict": True, "schema": SCHEMA}
    body = dialect.understood(RESPONSES, {"text": {"format": wanted, "verbosity": "low"}})
    inner = {"name": "place", "strict": True, "schema": SCHEMA}
    assert body["response_format"] == {"type": "json_schema", "json_schema": inner}
    assert dialect.understood(RESPONSES, {"text": {"format": {"type": "json_object"}}})["response_format"] == {
        "type": "json_object"
    }


@pytest.mark.parametrize("body", [{"text": "a"}, {"text": {}}, {"text": {"format": {"type": "json_object"}}}])
def test_elsewhere_text_means_nothing(body) -> None:
    assert dialect.understood(CHAT, body) is body
