"""The gateway's answers against the llama-server's own, request by request."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway import message_start
from gateway.endpoints import ENDPOINTS
from tests.conformance import comparing, refusals, rows, test_document
from tests.conformance.conftest import Both
from tests.conformance.rows import Row
from tests.running_service import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def by_the_gateway(both: Both, row: Row) -> httpx.Response:
    both.wait_until_idle(row.body["model"])
    return both.gateway.post("/v1" + ENDPOINTS[row.endpoint].path, json=row.body)


def by_the_engine(both: Both, row: Row) -> httpx.Response:
    both.wait_until_idle(row.body["model"])
    return both.engines[row.body["model"]].post(ENDPOINTS[row.endpoint].upstream_path, json=row.body)


@pytest.mark.parametrize("row", rows.ANSWERED, ids=lambda row: row.title)
def test_the_same_answer(both: Both, row: Row) -> None:
    if row.warm:
        by_the_engine(both, row)
    theirs, ours = by_the_engine(both, row), by_the_gateway(both, row)
    assert theirs.status_code == 200, theirs.text
    told, expected = comparing.told_by(ours), comparing.told_by(theirs)
    if message_start.is_missing(theirs.content):  # the gateway puts it in
        assert told.body[0][0] == "message_start"
        told = replace(told, body=told.body[1:])
    assert told == expected
    assert ours.headers["x-request-id"]
    assert ours.headers["x-replica"]


def test_a_tool_that_is_named_is_told_in_the_engines_way(both: Both) -> None:
    theirs = by_the_engine(both, Row("chat.completions", "as told", rows.NAMED_AS_TOLD))
    ours = by_the_gateway(both, Row("chat.completions", "as asked", rows.NAMED_AS_ASKED))
    assert comparing.told_by(ours) == comparing.told_by(theirs)


def first(both: Both, title: str) -> dict[str, Any]:
    """What a row's answer says, or its first choice."""
    [row] = [row for row in rows.ANSWERED if row.title == title]
    told = by_the_gateway(both, row).json()
    return told["choices"][0] if "choices" in told else told


def test_the_rows_are_about_something(both: Both) -> None:
    """Two answers are the same, too, when both leave out what was asked for."""
    [call] = first(both, "chat.completions: a tool is called")["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert first(both, "messages: a tool is called with sense")["stop_reason"] == "tool_use"
    kinds = {item["type"] for item in first(both, "responses: a tool is called with sense")["output"]}
    assert "function_call" in kinds
    assert first(both, "chat.completions: plain")["message"]["reasoning_content"]
    assert not first(both, "chat.completions: reasoning_format none")["message"].get("reasoning_content")
    assert first(both, "chat.completions: top_logprobs")["logprobs"]["content"][0]["top_logprobs"]
    assert first(both, "chat.completions: to its end with sense")["finish_reason"] == "stop"
    assert first(both, "chat.completions: grammar with sense")["message"]["content"] in {"yes", "no"}
    assert first(both, "completions: schema with sense")["text"].startswith("{")
    assert first(both, "infill: plain")["tokens_predicted"] == 4
    assert first(both, "infill: response_fields")["generation_settings/n_predict"] == 4


@pytest.mark.parametrize(
    ("row", "param"), refusals.refused(), ids=lambda part: part.title if isinstance(part, Row) else ""
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_same_refusal(both: Both, row: Row, param: str | None, stream: bool) -> None:
    """A wrong request is the client's fault, whatever status the engine gives it."""
    if stream:
        row = replace(row, body={**row.body, "stream": True})
    theirs, ours = by_the_engine(both, row), by_the_gateway(both, row)
    status, message = comparing.refusal_of(theirs)
    assert status in {400, 500}
    assert ours.status_code == 400, ours.text
    error = ours.json()["error"]
    if error.get("code") == "context_length_exceeded":
        assert all(number in message for number in re.findall(r"\d+", error["message"]))
    else:
        assert error["message"] == message.splitlines()[0][:500]
    if "param" in error:  # Anthropic's errors name no field
        assert error["param"] == param


def test_a_refusal_in_the_middle(both: Both) -> None:
    """The one of a whole answer is its error; a stream has begun, and ends with it."""
    row = Row("completions", "late", refusals.LATE)
    assert by_the_engine(both, row).status_code == 500
    ours = by_the_gateway(both, row)
    assert (ours.status_code, ours.json()["error"]["code"]) == (400, "invalid_request")
    assert "grammar" in ours.json()["error"]["message"]
    streamed = replace(row, body={**row.body, "stream": True})
    [(_, told)] = comparing.events_of(by_the_gateway(both, streamed).text)
    assert told == ours.json()


def test_a_stream_of_messages_has_its_first_event(both: Both) -> None:
    """An engine leaves it out where the first letter takes several tokens; with random weights one answer in eight begins so."""
    start = {"model": "tiny", "max_tokens": 6, "temperature": 0, "stream": True, "reasoning_format": "none"}
    start["cache_prompt"] = False  # with a part of it read already, the same numbers come about in another order
    for number in range(200):
        body = {**start, "messages": [{"role": "user", "content": f"Say {number}."}]}
        both.wait_until_idle("tiny")
        theirs = both.engines["tiny"].post("/v1/messages", json=body)
        if "message_start" not in theirs.text:
            break
    else:
        pytest.skip("this engine leaves nothing out: gateway/message_start.py can go")
    both.wait_until_idle("tiny")
    ours = both.gateway.post("/v1/messages", json=body)
    (name, first), *others = comparing.events_of(ours.text)
    assert name == first["type"] == "message_start"
    counted = both.gateway.post("/v1/messages/count_tokens", json=body).json()["input_tokens"]
    assert first["message"]["usage"]["input_tokens"] == counted
    assert others == comparing.events_of(theirs.text)
    assert usage_of(both, ours)["prompt_tokens"] == counted


def usage_of(both: Both, answer: httpx.Response) -> dict[str, Any]:
    """What was recorded of it."""

    def found() -> list[dict[str, Any]]:
        rows = both.gateway.get("/api/v1/usage").json()["results"]
        return [row for row in rows if row["request_id"] == answer.headers["x-request-id"]]

    return wait_for(found, "the usage record")[0]


@pytest.mark.parametrize("row", refusals.unable(), ids=lambda row: row.title)
def test_what_a_model_cannot_do_is_said_in_the_engines_words(both: Both, row: Row) -> None:
    theirs, ours = by_the_engine(both, row), by_the_gateway(both, row)
    assert theirs.status_code == 501
    assert (ours.status_code, ours.json()["error"]["code"]) == (400, "not_supported")
    assert ours.json()["error"]["message"] == theirs.json()["error"]["message"]


# -- what is not passed on -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prefix", ["/v1", "/api/v1/v1", ""])
@pytest.mark.parametrize(("method", "path"), refusals.NOT_OFFERED, ids=lambda part: part)
def test_what_manages_an_engine_is_not_reached(both: Both, method: str, path: str, prefix: str) -> None:
    answer = both.gateway.request(method, prefix + path.removeprefix("/v1"), json={} if method == "POST" else None)
    assert answer.status_code == 404, answer.text
    assert "llama.cpp" not in str(answer.headers)


@pytest.mark.parametrize(
    "path", ["/v1/../slots", "/v1/%2e%2e/slots", "/v1//slots", "/v1/tokenize/../../slots", "/v1/tokenize%2f..%2fslots"]
)
def test_no_way_around(both: Both, path: str) -> None:
    url = both.gateway.base_url.copy_with(raw_path=path.encode())
    for method in ("GET", "POST"):
        assert both.gateway.request(method, url).status_code == 404


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1/v1"])
def test_an_engines_metrics_are_not_reached(both: Both, prefix: str) -> None:
    """/metrics is the service's own."""
    assert both.gateway.get(prefix + "/metrics").status_code == 404


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/load", "/v1/models/unload", "/v1/models/sse"])
def test_models_are_only_looked_at_here(both: Both, method: str, path: str) -> None:
    """Below /v1/models stand names of models; none is called that."""
    assert both.gateway.request(method, path, json={"model": "tiny"}).status_code == 405
    if path != "/v1/models":
        assert both.gateway.get(path).status_code == 404


def test_the_engine_has_what_is_not_reached(both: Both) -> None:
    """So that the test above would see it, if it were."""
    found = [both.engines["tiny"].request(method, path, json={}).status_code for method, path in refusals.ENGINE_HAS]
    assert 404 not in found


def test_models_in_the_engines_form(both: Both) -> None:
    """What is the same of both; the rest is the service's own, since an engine knows one model only."""
    ours = {model["id"]: model for model in both.gateway.get("/v1/models").json()["data"]}
    assert set(ours) == set(both.engines)
    for name, engine in both.engines.items():
        [theirs] = engine.get("/v1/models").json()["data"]
        one = both.gateway.get(f"/v1/models/{name}").json()
        assert one == ours[name]
        assert {"id": theirs["id"], "object": theirs["object"]} == {"id": one["id"], "object": one["object"]}
        assert one["context_length"] == theirs["meta"]["n_ctx"]


def test_every_setting_an_engine_tells_of_stands_in_the_document(both: Both) -> None:
    """A newer engine has more of them: somebody has to say what becomes of each."""
    body = {**rows.STARTS["infill"], "n_predict": 1}
    settings = both.engines["tiny"].post("/infill", json=body).json()["generation_settings"]
    known = test_document.passed_on() | set(test_document.table("Refused")) | set(test_document.table("Bounded"))
    assert set(settings) <= known
