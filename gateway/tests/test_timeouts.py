"""How long an engine may take: every limit is one that can be set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from gateway.tests.conftest import Service, until, web

pytestmark = pytest.mark.e2e

ASKING = {"model": "alpha", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def hasty(service: Service, request: pytest.FixtureRequest) -> Iterator[Service]:
    """With the limits that a test names."""
    with web(service.home, "hasty", **request.param) as started:
        yield replace(service, url=started.url)


def limits(**seconds: int) -> pytest.MarkDecorator:
    names = {f"{name.upper()}_SECONDS": str(value) for name, value in seconds.items()}
    return pytest.mark.parametrize("hasty", [names], indirect=True, ids=["_".join(seconds)])


def ask(service: Service, **fields: object) -> httpx.Response:
    with service.http() as http:
        return http.post("/v1/chat/completions", json={**ASKING, **fields})


@limits(first_byte=1)
def test_an_engine_that_never_answers_is_an_upstream_error(hasty: Service) -> None:
    hasty.standins["alpha"].tell(generate="hang")
    answer = ask(hasty)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    until(lambda: hasty.metric("llm_slots_busy") == 0)


@limits(silence=1)
def test_another_one_goes_on_with_an_answer_in_which_an_engine_fell_silent(hasty: Service) -> None:
    hasty.standins["alpha"].tell(chunks=8, silent_after=5)
    answer = ask(hasty, stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert hasty.usage(answer.headers["x-request-id"])["resumed"] == 1


@limits(silence=1)
def test_an_engine_that_falls_silent_as_soon_as_it_began_is_an_upstream_error(hasty: Service) -> None:
    """The head of its answer and all it says come in one piece."""
    hasty.standins["alpha"].tell(broken="an event")
    answer = ask(hasty, stream=True, logprobs=True)  # which nobody goes on with
    content, error = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert (content["choices"][0]["delta"]["content"], error["error"]["code"]) == ("x", "upstream_error")


@limits(answer=3)
def test_an_answer_that_takes_too_long_is_ended(hasty: Service) -> None:
    hasty.standins["alpha"].tell(chunks=1000, token_seconds=0.1)
    answer = ask(hasty, stream=True)
    told = json.loads(answer.text.strip().rpartition("data: ")[2])["error"]
    record = hasty.usage(answer.headers["x-request-id"])
    assert (told["code"], record["outcome"], record["resumed"]) == ("timeout", "failed", 0)
    assert record["completion_tokens"] > 5
    assert record["cost"] == (record["prompt_tokens"] + record["completion_tokens"]) * 1000
