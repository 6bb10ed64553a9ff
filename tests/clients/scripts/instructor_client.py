"""``instructor``: answers as objects of a class. It has neither plain chat nor embeddings; those are its client's."""

from __future__ import annotations

import instructor
from asked import MODEL, QUESTION, Weather

HEADING = "instructor"
MESSAGES = [{"role": "user", "content": QUESTION}]


def chat(client: instructor.Instructor) -> None:
    """The object, and the answer it was read from."""
    formed, answer = client.create_with_completion(response_model=Weather, messages=MESSAGES, max_tokens=128)
    assert isinstance(formed, Weather)
    assert answer.model == MODEL
    assert answer.usage.completion_tokens > 0


def stream(client: instructor.Instructor) -> None:
    pieces = list(client.create_partial(response_model=Weather, messages=MESSAGES, max_tokens=128))
    assert len(pieces) > 1
    assert Weather.model_validate(pieces[-1].model_dump())


def tools(client: instructor.Instructor) -> None:
    by_tools = instructor.from_openai(client.client, mode=instructor.Mode.TOOLS, model=MODEL)
    assert isinstance(by_tools.create(response_model=Weather, messages=MESSAGES, max_tokens=128), Weather)
    assert list(by_tools.create_partial(response_model=Weather, messages=MESSAGES, max_tokens=128))


def json_schema(client: instructor.Instructor) -> None:
    assert client.mode is instructor.Mode.JSON_SCHEMA
    assert isinstance(client.create(response_model=Weather, messages=MESSAGES, max_tokens=128), Weather)
