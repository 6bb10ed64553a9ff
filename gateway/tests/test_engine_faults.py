"""Engines that answer nonsense, half of something, byte by byte, or not at all: the caller hears of it in its protocol, another
replica is asked where there is one, nothing is charged and nothing stays taken.
"""

from __future__ import annotations

import itertools
import json
import secrets

import anthropic
import httpx
import openai
import pytest

from gateway.tests.conftest import Service, until
from tests.standin.broken import BROKEN, STAYS

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
NONSENSE = sorted(set(BROKEN) - STAYS - {"odd error"})


def question() -> list[dict]:
    """That no replica remembers."""
    return [{"role": "user", "content": secrets.token_hex(8)}]


def ask(service: Service, model: str = "alpha", path: str = CHAT, **fields: object) -> httpx.Response:
    with service.http() as http:
        return http.post(path, json={"model": model, "messages": question()} | fields)


def whole_text(answer: httpx.Response) -> str:
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.json()["choices"][0]["message"]["content"]
    assert answer.text.endswith("data: [DONE]\n\n"), answer.text[-300:]
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


WHOLE = "".join(f"word{number} " for number in range(8))


# -- in place of an answer -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", NONSENSE)
def test_what_is_no_answer_is_an_upstream_error_and_costs_nothing(service: Service, how: str, stream: bool) -> None:
    service.standins["narrow"].tell(broken=how)
    answer = ask(service, "narrow", stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    record = service.usage(answer.headers["x-request-id"])
    assert (record["cost"], record["outcome"], record["status"]) == (0, "failed", 502)


@pytest.mark.parametrize(
    ("how", "stream"), [("garbage", False), ("half", False), ("half an event", True), ("short", True)]
)
def test_another_replica_answers_in_its_place(service: Service, how: str, stream: bool) -> None:
    first = service.standins["first"]
    first.tell(broken=how)
    before = len(first.seen())

    def the_first_was_asked() -> bool:
        """It rests for some seconds after failures."""
        answer = ask(service, "twins", stream=stream)
        assert (answer.status_code, answer.headers["x-replica"], whole_text(answer)) == (200, "twins/2", WHOLE)
        return len(first.seen()) > before

    until(the_first_was_asked)


def test_an_error_with_odd_figures_is_one_all_the_same(service: Service) -> None:
    service.standins["alpha"].tell(broken="odd error")
    answer = ask(service)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    ("path", "fields", "shape"),
    [
        ("/v1/completions", {"prompt": "Is it"}, "openai"),
        ("/v1/embeddings", {"model": "vectors", "input": ["x", "y"]}, "openai"),
        ("/v1/rerank", {"model": "vectors", "query": "x", "documents": ["y"]}, "openai"),
        ("/v1/tokenize", {"content": "Is it"}, "openai"),
        ("/api/v1/models/narrow/chat", {"message": "Is it"}, "rest"),
        ("/api/v1/models/narrow/chat", {"message": "Is it", "stream": True}, "rest"),
    ],
)
def test_in_each_protocol(service: Service, path: str, fields: dict, shape: str) -> None:
    keys = {"openai": {"message", "type", "param", "code"}, "rest": {"code", "message", "details"}}[shape]
    for name in ("narrow", "vectors"):
        service.standins[name].tell(broken="garbage", counting_broken="garbage")
    body = fields if shape == "rest" else {"model": "narrow", **fields}
    with service.http() as http:
        answer = http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    assert set(answer.json()["error"]) == keys


@pytest.mark.parametrize("stream", [False, True])
def test_two_that_fail_are_no_reason_not_to_ask_the_third(service: Service, stream: bool) -> None:
    for name in ("first", "second"):
        service.standins[name].tell(error_status=500)
    for _ in range(3):
        answer = ask(service, "three", stream=stream)
        assert whole_text(answer) == WHOLE
        assert answer.headers["x-replica"] == "three/3"
    assert ask(service, "three", "/v1/tokenize", content="Is it").status_code == 200


def test_what_every_one_fails_at_is_asked_of_three_at_most(service: Service) -> None:
    before = {name: len(service.standins[name].seen()) for name in ("first", "second", "alpha")}
    for name in before:
        service.standins[name].tell(error_status=500)
    assert ask(service, "three").json()["error"]["code"] == "upstream_error"
    assert [len(service.standins[name].seen()) - count for name, count in before.items()] == [1, 1, 1]


def test_counting_goes_to_another_replica_too(service: Service) -> None:
    for failing in ("first", "second"):
        service.standins["first"].tell(counting_broken=None)
        service.standins[failing].tell(counting_broken="garbage")
        answer = ask(service, "twins", "/v1/tokenize", content="Is it")
        assert (answer.status_code, answer.json()) == (200, {"tokens": [0, 1]})


# -- nothing more ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "stream"),
    [*itertools.product([*sorted(STAYS), "hang"], [False, True]), ("silent in the stream", True)],
)
def test_who_waits_for_an_engine_that_is_silent_may_leave(service: Service, how: str, stream: bool) -> None:
    standin = service.standins["narrow"]
    standin.tell(
        **{"silent in the stream": {"silent_after": 3}, "hang": {"generate": "hang"}}.get(how, {"broken": how})
    )
    before = len(standin.seen())
    with service.http() as http, pytest.raises(httpx.ReadTimeout):
        http.post(CHAT, json={"model": "narrow", "messages": question(), "stream": stream}, timeout=1)
    until(lambda: service.metric("llm_slots_busy") == 0)
    until(lambda: all(one["state"] == "closed" for one in standin.seen()[before:]))


# -- byte by byte, and in the middle ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_trickles_is_one(service: Service, stream: bool) -> None:
    service.standins["alpha"].tell(trickles=True)
    answer = ask(service, stream=stream)
    assert whole_text(answer) == WHOLE
    record = service.usage(answer.headers["x-request-id"])
    assert (record["outcome"], record["completion_tokens"]) == ("completed", 8)


@pytest.mark.parametrize("how", ["garbage_after", "half_after", "cut_after", "error_after"])
def test_what_breaks_off_in_the_middle_ends_with_an_error_event(service: Service, how: str) -> None:
    """If it cannot be gone on with, as one with probabilities."""
    service.standins["narrow"].tell(**{how: 3, "token_seconds": 0.001})
    answer = ask(service, "narrow", stream=True, logprobs=True)
    *_before, last = [json.loads(event.removeprefix("data: ")) for event in answer.text.strip().split("\n\n")]
    assert (last["error"]["code"], set(last["error"])) == ("upstream_error", {"message", "type", "param", "code"})
    record = service.usage(answer.headers["x-request-id"])
    assert (record["outcome"], record["completion_tokens"], record["status"]) == ("failed", 3, 502)


@pytest.mark.parametrize("how", ["garbage_after", "half_after", "cut_after", "error_after"])
def test_so_it_does_in_anthropics_form(service: Service, how: str) -> None:
    service.standins["narrow"].tell(**{how: 3, "token_seconds": 0.001})
    client = anthropic.Anthropic(base_url=service.url, api_key=service.tokens["ann"], max_retries=0)
    texts, body = list[str](), {"model": "narrow", "max_tokens": 8, "messages": question()}
    with client.messages.stream(**body) as stream, pytest.raises(anthropic.APIStatusError) as caught:
        texts.extend(stream.text_stream)
    assert len(texts) == 3
    assert caught.value.body["error"]["type"] == "api_error"


@pytest.mark.parametrize("how", ["garbage_after", "half_after", "error_after"])
def test_openais_client_gets_the_error_and_nothing_it_cannot_read(service: Service, how: str) -> None:
    service.standins["narrow"].tell(**{how: 3, "token_seconds": 0.001})
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.tokens["ann"], max_retries=0)
    events = list[openai.types.Completion]()
    stream = client.completions.create(model="narrow", prompt="Is it so?", stream=True)
    with pytest.raises(openai.APIError) as caught:
        events.extend(stream)
    assert (len(events), caught.value.code) == (3, "upstream_error")


def test_one_that_breaks_off_what_cannot_be_gone_on_with_rests_too(service: Service) -> None:
    service.standins["first"].tell(cut_after=3, token_seconds=0.001)
    while ask(service, "twins", stream=True, logprobs=True).headers["x-replica"] != "twins/1":
        pass
    assert ask(service, "twins", stream=True, logprobs=True).headers["x-replica"] == "twins/2"


def test_garbage_in_the_middle_is_left_out_and_the_answer_goes_on(service: Service) -> None:
    service.standins["alpha"].tell(garbage_after=3, token_seconds=0.001)
    answer = ask(service, stream=True)
    assert whole_text(answer) == WHOLE
    assert "garbage" not in answer.text
    record = service.usage(answer.headers["x-request-id"])
    assert (record["resumed"], record["outcome"], record["completion_tokens"]) == (2, "completed", 8)


def test_garbage_in_the_middle_of_our_own_form_is_left_out(service: Service) -> None:
    service.standins["alpha"].tell(garbage_after=3, token_seconds=0.001)
    with service.http() as http:
        answer = http.post("/api/v1/models/alpha/chat", json={"message": "Is it so?", "stream": True})
    last = json.loads(answer.text.strip().rpartition("data: ")[2])
    assert (last["done"], last["response"], last["usage"]["completion_tokens"]) == (True, WHOLE, 8)
