"""The official ``anthropic`` package. It has no embeddings, and gets JSON in a given form by a tool that must be called."""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic
from asked import MODEL, QUESTION, Weather, get_weather

HEADING = "Anthropic"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Berlin"]}},
    "required": ["city"],
}
OTHER: Any = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
TOOL: Any = {"name": "get_weather", "description": "The weather", "input_schema": SCHEMA}
NAMED: Any = {"type": "tool", "name": "get_weather"}


def chat(client: Anthropic) -> None:
    answer = client.messages.create(model=MODEL, max_tokens=8, system="Be brief.", messages=MESSAGES)
    assert answer.model == MODEL
    assert "".join(block.text for block in answer.content if block.type == "text")
    assert 0 < answer.usage.output_tokens <= 8


def stream(client: Anthropic) -> None:
    with client.messages.stream(model=MODEL, max_tokens=8, messages=MESSAGES) as events:
        pieces = list(events.text_stream)
        whole = events.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == "".join(block.text for block in whole.content if block.type == "text")


def tools(client: Anthropic) -> None:
    """Any tool, and each when it is named; what it gave goes back."""
    for choice, names in (
        ({"type": "any"}, {"get_time", "get_weather"}),
        ({"type": "tool", "name": "get_time"}, {"get_time"}),
        (NAMED, {"get_weather"}),
    ):
        answer = client.messages.create(
            model=MODEL, max_tokens=128, messages=MESSAGES, tools=[OTHER, TOOL], tool_choice=choice
        )
        assert answer.stop_reason == "tool_use"
        called = [block for block in answer.content if block.type == "tool_use"]
        assert {one.name for one in called} <= names
    results = [{"type": "tool_result", "tool_use_id": one.id, "content": get_weather(**one.input)} for one in called]
    later = [*MESSAGES, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    assert client.messages.create(model=MODEL, max_tokens=8, messages=later).content


def streamed_tools(client: Anthropic) -> None:
    with client.messages.stream(
        model=MODEL, max_tokens=128, messages=MESSAGES, tools=[OTHER, TOOL], tool_choice=NAMED
    ) as events:
        pieces = [event.partial_json for event in events if event.type == "input_json"]
        called = [block for block in events.get_final_message().content if block.type == "tool_use"]
    assert len(pieces) > 1
    assert {one.name for one in called} == {"get_weather"}
    assert all(get_weather(**one.input) for one in called)


def json_schema(client: Anthropic) -> None:
    tool: Any = {"name": "answer", "input_schema": Weather.model_json_schema()}
    answer = client.messages.create(
        model=MODEL, max_tokens=128, messages=MESSAGES, tools=[tool], tool_choice={"type": "tool", "name": "answer"}
    )
    [*_, called] = answer.content
    assert called.type == "tool_use"
    assert Weather.model_validate(called.input)
