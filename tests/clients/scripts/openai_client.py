"""The official ``openai`` package."""

from __future__ import annotations

import json
from typing import Any

from asked import EMBEDDINGS, MODEL, QUESTION, TEXTS, WIDTH, Weather, get_weather
from openai import OpenAI

HEADING = "OpenAI"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Berlin"]}},
    "required": ["city"],
}
OTHER: Any = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": SCHEMA},
}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


def chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    assert answer.model == MODEL
    assert answer.choices[0].message.content
    assert answer.usage
    assert 0 < answer.usage.completion_tokens <= 8


def stream(client: OpenAI) -> None:
    """Each piece is a token at least. The pieces are the whole: an answer in a given form can be read only then."""
    asked: Any = {"model": MODEL, "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = client.chat.completions.create(**asked, max_tokens=8)
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert 1 < len(pieces) <= last.usage.completion_tokens <= 8
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, response_format=Weather, max_tokens=128
    ) as events:
        deltas = [event.delta for event in events if event.type == "content.delta"]
    assert Weather.model_validate_json("".join(deltas))


def tools(client: OpenAI) -> None:
    """Any tool, and the one that is named; what it gave goes back."""
    for choice in ("required", NAMED):
        answer = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, tools=[OTHER, TOOL], tool_choice=choice, max_tokens=128
        )
        assert answer.choices[0].finish_reason == "tool_calls"
        calls = answer.choices[0].message.tool_calls
        assert calls
        assert {call.function.name for call in calls} <= {"get_time", "get_weather"}
    [call] = calls
    assert call.function.name == "get_weather"
    result = get_weather(**json.loads(call.function.arguments))
    later = [*MESSAGES, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    assert client.chat.completions.create(model=MODEL, messages=later, max_tokens=8).choices[0].message.content


def streamed_tools(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, tools=[OTHER, TOOL], tool_choice=NAMED, max_tokens=128
    ) as events:
        pieces = [event.arguments_delta for event in events if event.type == "tool_calls.function.arguments.delta"]
        [call] = events.get_final_completion().choices[0].message.tool_calls or []
    assert len(pieces) > 1
    assert "".join(pieces) == call.function.arguments
    assert get_weather(**json.loads(call.function.arguments))


def json_schema(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Weather, max_tokens=128)
    assert isinstance(answer.choices[0].message.parsed, Weather)


def responses(client: OpenAI) -> None:
    """OpenAI's newer way: whole, streamed, with a tool, and in a given form."""
    whole = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=16)
    assert whole.output_text
    events = list(client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=16, stream=True))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert events[-1].type == "response.completed"
    assert "".join(pieces) == events[-1].response.output_text
    tool: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": None}
    choice: Any = {"type": "function", "name": "get_weather"}
    called = client.responses.create(
        model=MODEL, input=QUESTION, tools=[tool], tool_choice=choice, max_output_tokens=128
    ).output[-1]
    assert called.type == "function_call"
    assert get_weather(**json.loads(called.arguments))
    formed = client.responses.parse(model=MODEL, input=QUESTION, text_format=Weather, max_output_tokens=128)
    assert isinstance(formed.output_parsed, Weather)


def embeddings(client: OpenAI) -> None:
    """Asked for in base64 by the client itself, and as numbers."""
    answer = client.embeddings.create(model=EMBEDDINGS, input=TEXTS)
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert {len(one.embedding) for one in answer.data} == {WIDTH}
    [one] = client.embeddings.create(model=EMBEDDINGS, input=TEXTS[0], encoding_format="float").data
    product = sum(a * b for a, b in zip(one.embedding, answer.data[0].embedding, strict=True))
    assert 0.999 < product < 1.001
