"""Plain curl."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from asked import EMBEDDINGS, MODEL, QUESTION, TEXTS, WIDTH, Weather, get_weather

HEADING = "curl"
MESSAGES = [{"role": "user", "content": QUESTION}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Berlin"]}},
    "required": ["city"],
}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
FORM = {"type": "json_schema", "json_schema": {"name": "weather", "schema": Weather.model_json_schema()}}


def _curl(address: str, key: str, path: str, **body: Any) -> str:
    headers = ["-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json"]
    command = ["curl", "-sSN", "--fail-with-body", f"{address}/v1/{path}", *headers, "-d", json.dumps(body)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def _answer(address: str, key: str, **body: Any) -> Any:
    return json.loads(_curl(address, key, "chat/completions", model=MODEL, messages=MESSAGES, **body))["choices"][0]


def chat(code: str) -> None:
    """As the document has it."""
    done = subprocess.run(["bash", "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]


def stream(address: str, key: str) -> None:
    """The pieces are the whole: an answer in a given form can be read only then."""
    asked: Any = {"response_format": FORM, "max_tokens": 128, "stream": True}
    text = _curl(address, key, "chat/completions", model=MODEL, messages=MESSAGES, **asked)
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert len([piece for piece in pieces if piece]) > 1
    assert Weather.model_validate_json("".join(pieces))


def tools(address: str, key: str) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = _answer(address, key, tools=[TOOL], tool_choice=choice, max_tokens=128)
    assert answer["finish_reason"] == "tool_calls"
    [call] = answer["message"]["tool_calls"]
    assert get_weather(**json.loads(call["function"]["arguments"]))


def json_schema(address: str, key: str) -> None:
    answer = _answer(address, key, response_format=FORM, max_tokens=128)
    assert Weather.model_validate_json(answer["message"]["content"])


def embeddings(address: str, key: str) -> None:
    answer = json.loads(_curl(address, key, "embeddings", model=EMBEDDINGS, input=TEXTS))
    assert [len(one["embedding"]) for one in answer["data"]] == [WIDTH] * 3
