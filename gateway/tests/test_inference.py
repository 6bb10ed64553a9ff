"""The inference endpoints through a real web server, with the official OpenAI client where it fits."""

from __future__ import annotations

import concurrent.futures
import json
import secrets
import threading
from dataclasses import replace

import httpx
import openai
import pytest

from gateway.tests.conftest import POOR, QUEUE_LENGTH, RICH, Service, hold, until, web

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "user", "content": "Is it so?"}]
PRICE = 1000


def client_of(service: Service, user: str = "ann", prefix: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=service.url + prefix, api_key=service.tokens[user], max_retries=0)


def ask(service: Service, model: str = "alpha", **fields: object) -> httpx.Response:
    with service.http() as http:
        return http.post("/v1/chat/completions", json={"model": model, "messages": MESSAGES} | fields)


# -- answers -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prefix", ["/v1", "/api/v1/v1"])
def test_a_chat_completion_is_the_engines_and_is_paid(service: Service, prefix: str) -> None:
    before = service.wallet("ann")["available"]
    raw = client_of(service, prefix=prefix).chat.completions.with_raw_response.create(
        model="alpha", messages=MESSAGES, max_tokens=5
    )
    answer = raw.parse()
    assert answer.model == "alpha"
    assert answer.choices[0].message.content == "word0 word1 word2 word3 word4 "
    record = service.usage(raw.headers["x-request-id"])
    tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (record["prompt_tokens"] + record["completion_tokens"], record["cost"]) == (tokens, tokens * PRICE)
    assert (record["outcome"], record["status"], record["replica"], record["source"]) == (
        "completed",
        200,
        "alpha/1",
        "api",
    )
    assert service.wallet("ann")["available"] == before - record["cost"]
    assert raw.headers["x-replica"] == "alpha/1"
    assert {"x-queue-ms", "openai-processing-ms"} <= set(raw.headers)


def test_a_stream_arrives_event_by_event(service: Service) -> None:
    service.standins["alpha"].tell(token_seconds=0.02)
    with client_of(service).chat.completions.with_streaming_response.create(
        model="alpha", messages=MESSAGES, stream=True
    ) as raw:
        stream = raw.parse()
        texts = [choice.delta.content for chunk in stream for choice in chunk.choices if choice.delta.content]
        request_id = raw.headers["x-request-id"]
    assert texts == [f"word{number} " for number in range(8)]
    record = service.usage(request_id)
    assert (record["streamed"], record["completion_tokens"], record["outcome"]) == (1, 8, "completed")
    assert record["first_token_ms"] < record["duration_ms"]


def test_the_bytes_of_a_stream_are_the_engines(service: Service) -> None:
    answer = ask(service, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")


def test_the_engine_gets_the_clients_own_fields(service: Service) -> None:
    ask(service, something_new=[1, 2], max_tokens=3)
    assert service.standins["alpha"].seen()[-1]["body"]["something_new"] == [1, 2]


def test_completions(service: Service) -> None:
    assert (
        client_of(service).completions.create(model="alpha", prompt="Is it", max_tokens=2).choices[0].text
        == "word0 word1 "
    )


def test_embeddings_cost_their_input(service: Service) -> None:
    raw = client_of(service).embeddings.with_raw_response.create(model="vectors", input=["one two", "three"])
    assert len(raw.parse().data) == 2
    record = service.usage(raw.headers["x-request-id"])
    assert (record["prompt_tokens"], record["completion_tokens"]) == (3, 0)


def test_a_model_without_embeddings_says_so(service: Service) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client_of(service).embeddings.create(model="alpha", input="x")
    assert caught.value.code == "not_supported"


def test_tokenize_is_free(service: Service) -> None:
    before = service.wallet("ann")["available"]
    with service.http() as http:
        assert http.post("/v1/tokenize", json={"model": "alpha", "content": "a b"}).json() == {"tokens": [0, 1]}
    assert service.wallet("ann")["available"] == before


def test_models(service: Service) -> None:
    client = client_of(service)
    assert {model.id for model in client.models.list()} == {
        "alpha",
        "broken",
        "coming",
        "narrow",
        "three",
        "twins",
        "vectors",
    }
    assert client.models.retrieve("alpha").id == "alpha"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("hidden")


# -- refusals ------------------------------------------------------------------------------------------------------------
def test_typed_errors_of_the_official_client(service: Service) -> None:
    client = client_of(service)
    with pytest.raises(openai.AuthenticationError) as unknown:
        openai.OpenAI(base_url=service.url + "/v1", api_key="nonsense", max_retries=0).chat.completions.create(
            model="alpha", messages=MESSAGES
        )
    assert unknown.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="nobody", messages=MESSAGES)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="alpha", messages="hello")
    assert (wrong.value.code, wrong.value.param, wrong.value.type) == (
        "invalid_request",
        "messages",
        "invalid_request_error",
    )
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="alpha", messages=[{"role": "user", "content": "word " * 3000}])
    assert long.value.code == "context_length_exceeded"
    assert "2048" in str(long.value)


def test_an_empty_balance_is_a_rate_limit_error(service: Service) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        client_of(service, "poor").chat.completions.create(
            model="alpha", messages=[{"role": "user", "content": "x" * 500}]
        )
    assert (caught.value.code, caught.value.response.headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert service.wallet("poor")["available"] == POOR


@pytest.mark.parametrize(("user", "asked"), [("scarce", {"max_tokens": 60}), ("scanty", {})])
def test_the_answer_is_cut_to_what_the_balance_affords(service: Service, user: str, asked: dict) -> None:
    """120 tokens: less 80 for the template, 12 for the message and some for its text."""
    raw = client_of(service, user).chat.completions.with_raw_response.create(
        model="alpha", messages=[{"role": "user", "content": "x"}], **asked
    )
    limit = int(raw.headers["x-max-tokens"])
    assert 0 < limit < 28
    assert service.standins["alpha"].seen()[-1]["body"]["max_tokens"] == limit
    service.usage(raw.headers["x-request-id"])


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", "openai"),
        ("/v1/messages", "anthropic"),
        ("/api/v1/models/alpha/chat", "rest"),
        ("/v1/nothing/here", "openai"),
    ],
)
def test_each_protocol_has_its_own_error_shape(service: Service, path: str, shape: str) -> None:
    with service.http() as http:
        answer = http.post(path, content=b"{not json")
    assert answer.status_code == (404 if "nothing" in path else 400)
    assert answer.headers["x-request-id"].startswith("req-")
    body = answer.json()
    if shape == "anthropic":
        assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    elif shape == "rest":
        assert set(body["error"]) == {"code", "message", "details"}
    else:
        assert set(body["error"]) == {"message", "type", "param", "code"}


def test_no_token_wrong_method_wrong_host(service: Service) -> None:
    with service.http(None) as http:
        answer = http.post("/v1/chat/completions", json={})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="api"')
    with service.http() as http:
        assert http.get("/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"
        answer = http.post("/v1/chat/completions", json={}, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_host")


def test_an_api_key_header_counts_as_a_token(service: Service) -> None:
    with service.http(None) as http:
        assert http.get("/v1/models", headers={"x-api-key": service.tokens["ann"]}).status_code == 200
        assert http.get("/v1/models", headers={"x-api-key": "nonsense"}).status_code == 401


def test_a_body_beyond_the_limit(service: Service) -> None:
    with service.http() as http:
        answer = http.post("/v1/chat/completions", content=b" " * (10 * 2**20 + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_errors_speak_the_callers_language(service: Service) -> None:
    with service.http() as http:
        answer = http.post(
            "/v1/chat/completions", json={"model": "nobody", "messages": MESSAGES}, headers={"Accept-Language": "zh-CN"}
        )
    assert answer.json()["error"]["code"] == "model_not_found"


def test_models_that_do_not_run(service: Service) -> None:
    with web(service.home, "hasty", MODEL_WAIT_SECONDS="1") as hasty:
        broken, coming = (ask(replace(service, url=hasty.url), model) for model in ("broken", "coming"))
    for answer in (broken, coming):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_available")
        assert int(answer.headers["retry-after"]) > 0
    assert "x-queue-position" not in broken.headers  # nobody waits for it
    assert coming.headers["x-queue-position"] == "1"


def test_a_model_that_comes_while_somebody_waits_answers(service: Service) -> None:
    standin = service.standins["alpha"]
    model = "(SELECT id FROM models_app_modelconfig WHERE name = 'coming')"
    change = f"UPDATE models_app_replica SET state = ?, port = ? WHERE model_id = {model}"
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, service, "coming")
        until(lambda: service.metric("llm_requests_queued") == 1)
        service.change(change, "ready", standin.port)
        try:
            assert waiting.result().status_code == 200
        finally:
            service.change(change, "loading", None)


# -- replicas that fail ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("failing", "answering"), [("first", "twins/2"), ("second", "twins/1")])
@pytest.mark.parametrize("stream", [True, False])
def test_another_replica_answers_when_one_fails_before_the_first_byte(
    service: Service, failing: str, answering: str, stream: bool
) -> None:
    service.standins[failing].tell(error_status=500)
    answers = [ask(service, "twins", stream=stream) for _ in range(4)]
    assert [(answer.status_code, answer.headers["x-replica"]) for answer in answers] == [(200, answering)] * 4


@pytest.mark.parametrize("length", [10, 2_000_000])
def test_connections_that_were_kept_and_are_closed_now_fail_nobody(service: Service, length: int) -> None:
    """The larger question is still being written when its connection ends."""
    standin = service.standins["narrow"]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: ask(service, "alpha"), range(4)))  # as many connections
    for name in ("alpha", "narrow"):
        assert ask(service, name).status_code == 200
        service.standins[name].tell(drops_kept=True)
    before = service.metric("llm_retries_total")
    question = "word" * (length // 4)
    messages = [{"role": "user", "content": question}]
    answers = [ask(service, name, messages=messages) for name in ("alpha", "narrow", "narrow")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(standin.seen()[-1]["body"]["messages"][0]["content"]) == len(question)
    assert service.metric("llm_retries_total") == before


def test_a_replica_that_refuses_connections_is_passed_over(service: Service) -> None:
    service.standins["first"].stop()
    answers = [ask(service, "twins") for _ in range(6)]
    assert [(answer.status_code, answer.headers["x-replica"]) for answer in answers] == [(200, "twins/2")] * 6


def test_no_other_replica_is_an_upstream_error_and_costs_nothing(service: Service) -> None:
    service.standins["alpha"].tell(error_status=500)
    answer = ask(service)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")
    record = service.usage(answer.headers["x-request-id"])
    assert (record["cost"], record["outcome"], record["status"]) == (0, "failed", 502)
    assert str(service.standins["alpha"].port) not in answer.text


def test_a_replica_that_dies_in_mid_stream_ends_it_with_an_error_event(service: Service) -> None:
    """If the answer cannot be gone on with elsewhere, as one with probabilities."""
    service.standins["alpha"].tell(cut_after=3, token_seconds=0.02)
    with client_of(service).chat.completions.with_streaming_response.create(
        model="alpha", messages=MESSAGES, stream=True, logprobs=True
    ) as raw:
        texts = []
        with pytest.raises(openai.APIError) as caught:
            texts.extend(chunk.choices[0].delta.content for chunk in raw.parse())
        request_id = raw.headers["x-request-id"]
    assert caught.value.code == "upstream_error"
    record = service.usage(request_id)
    assert (record["outcome"], record["completion_tokens"], record["status"]) == ("failed", 3, 502)
    assert record["cost"] == (record["prompt_tokens"] + 3) * PRICE


# -- progress events, before the content -------------------------------------------------------------------------------------
def fresh() -> list[dict]:
    """Messages that no replica remembers."""
    return [{"role": "user", "content": secrets.token_hex()}]


def stream_with_progress(service: Service, model: str) -> tuple[str, list[dict]]:
    """The request id and the events."""
    answer = ask(service, model, stream=True, return_progress=True, messages=fresh())
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return answer.headers["x-request-id"], events


def text_of(events: list[dict]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


@pytest.mark.parametrize("how", ["cut_in_prompt", "error_in_prompt"])
def test_another_replica_answers_when_one_fails_while_it_reads_the_prompt(service: Service, how: str) -> None:
    for name in ("first", "second"):
        service.standins[name].tell(progress=4, first_token_seconds=0.1)
    service.standins["first"].tell(**{how: 2})

    def the_first_was_asked() -> bool:
        """It rests for some seconds after failures."""
        request_id, events = stream_with_progress(service, "twins")
        assert text_of(events) == "".join(f"word{number} " for number in range(8))
        record = service.usage(request_id)
        assert (record["replica"], record["outcome"], record["completion_tokens"]) == ("twins/2", "completed", 8)
        return sum("prompt_progress" in event for event in events) == 6  # two of its own, before those of the second

    until(the_first_was_asked)


def test_no_other_replica_while_the_prompt_is_read_ends_the_stream_with_an_error_and_costs_nothing(
    service: Service,
) -> None:
    service.standins["alpha"].tell(progress=4, cut_in_prompt=2)
    answer = ask(service, stream=True, return_progress=True)
    *events, last = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert [event["prompt_progress"]["processed"] for event in events] == [0, 1]
    assert last["error"]["code"] == "upstream_error"
    record = service.usage(answer.headers["x-request-id"])
    assert (record["outcome"], record["status"], record["cost"]) == ("failed", 502, 0)


def test_pings_are_not_the_first_byte(service: Service) -> None:
    for name in ("first", "second"):
        service.standins[name].tell(pings=4, first_token_seconds=0.4)
    service.standins["first"].tell(cut_in_prompt=2)

    def the_first_was_asked() -> bool:
        answer = ask(service, "twins", stream=True, messages=fresh())
        assert answer.text.endswith("data: [DONE]\n\n")
        assert "error" not in answer.text
        record = service.usage(answer.headers["x-request-id"])
        assert (record["replica"], record["outcome"], record["completion_tokens"]) == ("twins/2", "completed", 8)
        assert record["first_token_ms"] >= 350
        return answer.text.count(":\n\n") == 6  # two of its own

    until(the_first_was_asked)


def test_progress_is_neither_the_first_token_nor_charged(service: Service) -> None:
    standin = service.standins["alpha"]
    standin.tell(progress=5, first_token_seconds=0.5, cut_after=3, token_seconds=0.01)
    answer = ask(service, stream=True, return_progress=True, logprobs=True)
    record = service.usage(answer.headers["x-request-id"])
    assert (record["outcome"], record["completion_tokens"]) == ("failed", 3)
    assert record["first_token_ms"] >= 450


def test_a_client_that_leaves_while_the_prompt_is_read_frees_the_slot(service: Service) -> None:
    standin = service.standins["narrow"]
    standin.tell(progress=1000, first_token_seconds=60)
    body = {"model": "narrow", "messages": MESSAGES, "stream": True, "return_progress": True}
    with service.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert "prompt_progress" in next(line for line in answer.iter_lines() if line)
        request_id = answer.headers["x-request-id"]
    until(lambda: standin.seen()[-1]["state"] != "running")
    assert standin.seen()[-1]["state"] == "closed"
    record = service.usage(request_id)
    assert (record["outcome"], record["completion_tokens"], record["first_token_ms"]) == ("cancelled", 0, None)


def test_an_error_in_a_stream_speaks_the_callers_language(service: Service) -> None:
    service.standins["alpha"].tell(cut_after=1, token_seconds=0.01)
    told = []
    for language in ("zh-CN", "en"):
        with service.http() as http:
            body = {"model": "alpha", "messages": MESSAGES, "stream": True, "logprobs": True}
            text = http.post("/v1/chat/completions", json=body, headers={"Accept-Language": language}).text
        told.append(json.loads(text.strip().rpartition("data: ")[2])["error"])
    assert [error["code"] for error in told] == ["upstream_error"] * 2
    assert told[0]["message"] != told[1]["message"] == "The model's server failed while answering."


# -- clients that leave ----------------------------------------------------------------------------------------------------
def test_a_client_that_leaves_in_mid_stream_stops_the_generation_and_pays_for_what_was_made(service: Service) -> None:
    standin = service.standins["alpha"]
    standin.tell(chunks=60, token_seconds=0.5)
    with (
        service.http() as http,
        http.stream(
            "POST", "/v1/chat/completions", json={"model": "alpha", "messages": MESSAGES, "stream": True}
        ) as answer,
    ):
        request_id = answer.headers["x-request-id"]
        seen = 0
        for line in answer.iter_lines():
            seen += '"word' in line
            if seen == 5:
                break
    until(lambda: standin.seen()[-1]["state"] == "closed")
    record = service.usage(request_id)
    assert record["outcome"] == "cancelled"
    assert 5 <= record["completion_tokens"] < 40
    assert record["cost"] == (record["prompt_tokens"] + record["completion_tokens"]) * PRICE > 0


def test_a_client_that_leaves_before_the_first_byte_frees_the_slot(service: Service) -> None:
    standin = service.standins["narrow"]
    standin.tell(first_token_seconds=60)
    with hold(service, stream=False):
        until(lambda: standin.seen()[-1:] and standin.seen()[-1]["state"] == "running")
    until(lambda: standin.seen()[-1]["state"] == "closed")
    standin.tell(first_token_seconds=0)
    assert ask(service, "narrow").status_code == 200


def test_a_client_that_leaves_the_queue_costs_nothing(service: Service) -> None:
    standin = service.standins["narrow"]
    standin.tell(first_token_seconds=60)
    records = "SELECT cost, outcome FROM accounts_usagerecord WHERE username = 'bob' ORDER BY id"
    before = len(service.rows(records))
    with hold(service):
        until(lambda: len(standin.seen()) == 1)
        with hold(service, token=service.tokens["bob"], stream=False):
            until(lambda: service.metric("llm_requests_queued") == 1)
        until(lambda: service.metric("llm_requests_queued") == 0)
        [left] = until(lambda: service.rows(records)[before:])
    assert (left["cost"], left["outcome"]) == (0, "cancelled")
    assert len(standin.seen()) == 1


# -- many ------------------------------------------------------------------------------------------------------------------
def test_one_users_many_requests_delay_anothers_single_one_by_one_turn(service: Service) -> None:
    narrow = service.standins["narrow"]
    before = len(narrow.seen())
    body = {"model": "narrow", "messages": MESSAGES, "max_tokens": 1}

    def one(user: str) -> None:
        with service.http(user) as http:
            assert http.post("/v1/chat/completions", json={**body, "user": user}).status_code == 200

    narrow.tell(first_token_seconds=60)
    with hold(service):  # has the only slot while the others come
        until(lambda: len(narrow.seen()) == before + 1)
        narrow.tell(first_token_seconds=0)
        threads = [threading.Thread(target=one, args=(user,)) for user in ["ann"] * 9 + ["bob"]]
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda number=number: service.metric("llm_requests_queued") == number)
    for thread in threads:
        thread.join()
    turns = [
        entry["body"].get("user") for entry in narrow.seen()[before + 1 :]
    ]  # which the engine has one after the other
    assert (turns.index("bob"), len(turns)) == (1, 10)


def test_a_full_queue_is_overloaded(service: Service) -> None:
    standin = service.standins["narrow"]
    standin.tell(first_token_seconds=60)
    with concurrent.futures.ThreadPoolExecutor(QUEUE_LENGTH) as pool:
        with hold(service):
            until(lambda: len(standin.seen()) == 1)
            standin.tell(first_token_seconds=0)
            waiting = [pool.submit(ask, service, "narrow") for _ in range(QUEUE_LENGTH)]
            until(lambda: service.metric("llm_requests_queued") == QUEUE_LENGTH)
            refused = ask(service, "narrow")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert {request.result().status_code for request in waiting} == {200}


def test_the_ledger_adds_up_after_a_storm(service: Service) -> None:
    service.standins["alpha"].tell(token_seconds=0.003)
    bodies = [
        {"model": "alpha", "messages": MESSAGES, "max_tokens": 3},
        {"model": "alpha", "messages": MESSAGES, "stream": True},
        {"model": "twins", "messages": MESSAGES, "stream": True},
        {"model": "nobody", "messages": MESSAGES},
        {"model": "twins", "messages": [{"role": "user", "content": "word " * 3000}]},
    ]

    def one(number: int) -> None:
        user, body = ("ann", "bob", "poor")[number % 3], bodies[number % len(bodies)]
        with service.http(user) as http:
            if number % 7 == 0 and body.get("stream"):
                with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                    next(answer.iter_bytes(), b"")  # and leaves
            else:
                http.post("/v1/chat/completions", json=body)

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        list(pool.map(one, range(200)))
    until(service.settled)
    until(lambda: service.metric("llm_requests_under_way") == 0)
    for row in service.rows(
        "SELECT w.available, w.held, SUM(e.available_change) AS a, SUM(e.held_change) AS h, u.username FROM accounts_wallet w"
        " JOIN accounts_ledgerentry e ON e.wallet_id = w.id JOIN accounts_user u ON u.id = w.user_id GROUP BY w.id"
    ):
        assert (row["available"], row["held"]) == (row["a"], row["h"] or 0), row["username"]
        assert row["held"] == 0
    [difference] = service.rows(
        "SELECT (SELECT SUM(cost) FROM accounts_usagerecord) - (SELECT SUM(cost) FROM accounts_ledgerentry) AS cents"
    )
    assert difference["cents"] == 0
    assert service.wallet("ann")["available"] < RICH


# -- our own form ------------------------------------------------------------------------------------------------------------
def test_native_chat(service: Service) -> None:
    with service.http() as http:
        answer = http.post("/api/v1/models/alpha/chat", json={"message": "你好", "max_tokens": 4}).json()
    assert (answer["model"], answer["response"]) == ("alpha", "word0 word1 word2 word3 ")
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 4


def test_native_chat_streamed(service: Service) -> None:
    with service.http() as http:
        text = http.post("/api/v1/models/alpha/chat", json={"message": "hello", "stream": True}).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert "".join(event["delta"] for event in events[:-1]) == events[-1]["response"]
    assert (events[-1]["done"], events[-1]["usage"]["completion_tokens"]) == (True, 8)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"message": "x", "surprise": 1}, "surprise"),
        ({}, "message"),
        ({"message": "x", "max_tokens": "many"}, "max_tokens"),
    ],
)
def test_native_chat_refuses_by_field(service: Service, body: dict, field: str) -> None:
    with service.http() as http:
        answer = http.post("/api/v1/models/alpha/chat", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert list(answer.json()["error"]["details"]) == [field]


def test_native_chat_with_an_unknown_model(service: Service) -> None:
    with service.http() as http:
        answer = http.post("/api/v1/models/nobody/chat", json={"message": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
