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


@pytest.fixture(scope="module")
def hasty_url(running: Service) -> Iterator[str]:
    limits = {"FIRST_BYTE_SECONDS": "1", "SILENCE_SECONDS": "1", "ANSWER_SECONDS": "3", "MODEL_WAIT_SECONDS": "5"}
    with web(running.home, "hasty", **limits) as started:
        yield started.url


@pytest.fixture
def hasty(service: Service, hasty_url: str) -> Service:
    return replace(service, url=hasty_url)


def ask(service: Service, **fields: object) -> httpx.Response:
    with service.http() as http:
        return http.post("/v1/chat/completions", json={**ASKING, **fields})


def test_an_engine_that_never_answers_is_an_upstream_error(hasty: Service) -> None:
    hasty.standins["alpha"].tell(generate="hang")
    answer = ask(hasty)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    until(lambda: hasty.metric("llm_slots_busy") == 0)


def test_another_one_goes_on_with_an_answer_in_which_an_engine_fell_silent(hasty: Service) -> None:
    hasty.standins["alpha"].tell(chunks=8, silent_after=5)
    answer = ask(hasty, stream=True)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert hasty.usage(answer.headers["x-request-id"])["resumed"] == 1


def test_an_answer_that_takes_too_long_is_ended(hasty: Service) -> None:
    hasty.standins["alpha"].tell(chunks=1000, token_seconds=0.1)
    answer = ask(hasty, stream=True)
    told = json.loads(answer.text.strip().rpartition("data: ")[2])["error"]
    record = hasty.usage(answer.headers["x-request-id"])
    assert (told["code"], record["outcome"], record["resumed"]) == ("timeout", "failed", 0)
    assert record["completion_tokens"] > 5
    assert record["cost"] == (record["prompt_tokens"] + record["completion_tokens"]) * 1000
