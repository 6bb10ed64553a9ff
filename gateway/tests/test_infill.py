"""Filling in what is missing: answers in llama.cpp's own format, what is charged for them, and clients that choose its fields."""

from __future__ import annotations

import json

import pytest

from gateway.tests.conftest import Service, until

pytestmark = pytest.mark.e2e

PATH = "/v1/infill"
PROMPT = 6  # words around the hole


def body(**fields: object) -> dict[str, object]:
    around = {"input_prefix": "def twice(x):", "input_suffix": "return y", "input_extra": [{"text": "import os"}]}
    return {"model": "alpha", "n_predict": 8, **around, **fields}


def events(text: str) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def charged(service: Service, request_id: str) -> tuple[int, int, str]:
    record = service.usage(request_id)
    return record["prompt_tokens"], record["completion_tokens"], record["outcome"]


@pytest.mark.parametrize("path", [PATH, "/api/v1/v1/infill"])
def test_a_whole_answer(service: Service, path: str) -> None:
    with service.http() as http:
        answer = http.post(path, json=body(n_predict=5))
    assert answer.json()["stop"] is True
    assert answer.json()["tokens_predicted"] == 5
    assert charged(service, answer.headers["x-request-id"]) == (PROMPT, 5, "completed")
    assert service.usage(answer.headers["x-request-id"])["endpoint"] == "infill"


def test_a_stream(service: Service) -> None:
    with service.http() as http:
        answer = http.post(PATH, json=body(stream=True))
    found = events(answer.text)
    assert [event["stop"] for event in found] == [False] * 8 + [True]
    assert "[DONE]" not in answer.text
    assert charged(service, answer.headers["x-request-id"]) == (PROMPT, 8, "completed")


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers(service: Service, stream: bool) -> None:
    with service.http() as http:
        answer = http.post(PATH, json=body(n_cmpl=3, stream=stream))
    found = events(answer.text) if stream else answer.json()
    assert {event["index"] for event in found} == {0, 1, 2}
    assert charged(service, answer.headers["x-request-id"]) == (PROMPT, 24, "completed")


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_chooses_fields_pays_all_the_same(service: Service, stream: bool) -> None:
    with service.http() as http:
        answer = http.post(PATH, json=body(response_fields=["content"], stream=stream))
    last = events(answer.text)[-1] if stream else answer.json()
    assert set(last) == {"content", "stop", "timings"}
    assert charged(service, answer.headers["x-request-id"]) == (PROMPT, 8, "completed")


@pytest.mark.parametrize("switch", ["cut_after", "error_after"])
def test_an_answer_that_breaks_off(service: Service, switch: str) -> None:
    service.standins["alpha"].tell(**{switch: 3})
    with service.http() as http:
        answer = http.post(PATH, json=body(stream=True))
    assert "error" in events(answer.text)[-1]
    prompt, completion, outcome = charged(service, answer.headers["x-request-id"])
    assert (completion, outcome) == (3, "failed")
    assert prompt >= PROMPT


def test_a_client_that_leaves(service: Service) -> None:
    service.standins["alpha"].tell(token_seconds=0.05, chunks=500)
    with service.http() as http, http.stream("POST", PATH, json=body(stream=True, n_predict=500)) as answer:
        request_id = answer.headers["x-request-id"]
        next(line for line in answer.iter_lines() if line)
    prompt, completion, outcome = charged(service, request_id)
    assert outcome == "cancelled"
    assert 1 <= completion < 500
    assert prompt >= PROMPT
    until(lambda: service.standins["alpha"].seen()[-1]["state"] == "closed")


def test_the_balance_limits_the_answer(service: Service) -> None:
    """The limit is written under llama.cpp's own name."""
    with service.http() as http:
        http.post(PATH, json={name: value for name, value in body().items() if name != "n_predict"})
    sent = service.standins["alpha"].seen()[-1]["body"]
    assert sent["n_predict"] > 0


def test_a_model_that_cannot(service: Service) -> None:
    service.standins["alpha"].tell(error_status=501)
    with service.http() as http:
        answer = http.post(PATH, json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "not_supported")
    assert charged(service, answer.headers["x-request-id"]) == (0, 0, "refused")
