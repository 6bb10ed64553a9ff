"""What bodies are taken, and what becomes of them on the way to the engine."""

import json

import pytest

from gateway import bodies, upstream
from gateway.endpoints import ENDPOINTS
from gateway.errors import GatewayError

CHAT = ENDPOINTS["chat.completions"]
MESSAGES = [{"role": "user", "content": "hello"}]


def chat(**fields) -> dict:
    return {"model": "m", "messages": MESSAGES, **fields}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat(model=7), "model"),
        (chat(model=0), "model"),
        (chat(model=[]), "model"),
        (chat(messages="hello"), "messages"),
        (chat(messages=[]), "messages"),
        (chat(messages=["hello"]), "messages"),
        (chat(messages=None), "messages"),
        (chat(stream="yes"), "stream"),
        (chat(stream=1), "stream"),
        (chat(max_tokens=-1), "max_tokens"),
        (chat(max_tokens="10"), "max_tokens"),
        (chat(max_tokens=1.5), "max_tokens"),
        (chat(max_tokens=True), "max_tokens"),
        (chat(max_tokens=2**40), "max_tokens"),
        (chat(max_completion_tokens=-5), "max_completion_tokens"),
        (chat(n_predict=-1), "n_predict"),
        (chat(temperature=float("inf")), "temperature"),
        (chat(n=0), "n"),
        (chat(n=1000), "n"),
        (chat(n_cmpl=9), "n_cmpl"),
        (chat(n_probs=10**6), "n_probs"),
        (chat(id_slot=0), "id_slot"),
        (chat(n_discard=-1), "n_discard"),
        (chat(lora=[]), "lora"),
    ],
)
def test_what_is_refused_is_named(body: dict, param: str) -> None:
    with pytest.raises(GatewayError) as caught:
        bodies.check(CHAT, body)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_request", param)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'"x"',
        b"\xff\xfe{",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"[" * 100_000,
        b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"a": [' + b"[]," * 200_000 + b"[]]}",
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        bodies.parse(raw)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")


def test_unknown_fields_are_taken() -> None:
    plan = bodies.check(CHAT, chat(something_new={"a": 1}, stream=True, max_tokens=9))
    assert (plan.model, plan.stream, plan.asked_tokens, plan.answers) == ("m", True, 9, 1)


def sent(limit: int, raw: bytes) -> bytes:
    body = bodies.parse(raw)
    return bodies.with_limit(CHAT, body, raw, bodies.check(CHAT, body), limit)


def test_bytes_that_need_no_change_are_the_clients_own() -> None:
    raw = b' {"model":"m" , "messages":[{"role":"user","content":"\\u4f60"}],"max_tokens":5}\n'
    assert sent(10, raw) is raw


def test_a_missing_limit_is_put_in_front_of_the_clients_bytes() -> None:
    raw = b'  {"model":"m","messages":[{"role":"user","content":"\\u4f60"}]}'
    assert sent(10, raw) == b'{"max_tokens":10,"model":"m","messages":[{"role":"user","content":"\\u4f60"}]}'


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_a_limit_that_cannot_be_paid_is_lowered_under_every_name(name: str) -> None:
    body = json.loads(sent(10, json.dumps(chat(**{name: 50})).encode()))
    assert body[name] == 10


def test_a_limit_of_null_counts_as_none() -> None:
    body = json.loads(sent(10, json.dumps(chat(max_tokens=None)).encode()))
    assert body["max_tokens"] == 10


def test_of_several_limits_each_is_lowered() -> None:
    body = json.loads(sent(10, json.dumps(chat(max_tokens=5, n_predict=50)).encode()))
    assert (body["max_tokens"], body["n_predict"]) == (5, 10)


def test_half_a_surrogate_pair_does_not_break_the_writing() -> None:
    assert b"\\ud800" in sent(10, b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}],"max_tokens":50}')


@pytest.mark.parametrize("text", ["hello " * 100, "你好" * 100, "🙂" * 50])
def test_the_prompt_bound_is_at_least_the_bytes_of_the_text(text: str) -> None:
    body = chat(messages=[{"role": "user", "content": [{"type": "text", "text": text}]}], tools=[{"description": text}])
    assert bodies.check(CHAT, body).prompt_bound >= 2 * len(text.encode())


def test_several_prompts_and_answers_multiply() -> None:
    endpoint = ENDPOINTS["completions"]
    assert bodies.check(endpoint, {"model": "m", "prompt": ["a", "b"], "n": 3}).answers == 6
    assert bodies.check(endpoint, {"model": "m", "prompt": [1, 2, 3]}).answers == 1
    with pytest.raises(GatewayError):
        bodies.check(endpoint, {"model": "m", "prompt": ["a"] * 1000})


@pytest.mark.parametrize("parts", [1, 3, 500])
@pytest.mark.parametrize(
    ("name", "field"), [("completions", "prompt"), ("embeddings", "input"), ("rerank", "documents")]
)
def test_each_of_several_texts_may_fill_the_context(name: str, field: str, parts: int) -> None:
    if name == "completions":
        parts = min(parts, bodies.MAX_PROMPTS)
    plan = bodies.check(ENDPOINTS[name], {"model": "m", "query": "q", field: ["x" * 5000] * parts})
    assert (plan.prompts, plan.answers) == (parts, parts if name == "completions" else 1)
    assert plan.prompt_bound > 5000 * parts
    assert plan.most_read(1000) == 1024 * parts
    assert plan.most_read(None) == plan.most_read(10**6) == plan.prompt_bound


def test_a_query_counts_with_each_document_and_a_text_that_is_embedded_once() -> None:
    rerank = bodies.check(ENDPOINTS["rerank"], {"model": "m", "query": "q" * 1000, "documents": ["d"] * 20})
    assert 20_000 < rerank.prompt_bound < 20 * (1000 + 200)
    texts = bodies.check(ENDPOINTS["embeddings"], {"model": "m", "input": ["d" * 100] * 20})
    assert 2000 < texts.prompt_bound < 20 * (100 + 20)
    tokens = bodies.check(ENDPOINTS["embeddings"], {"model": "m", "input": [[1] * 100, [2] * 50]})
    assert (tokens.prompts, tokens.prompt_bound >= 150) == (2, True)


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "Invalid tool_choice: x", 400),
        (400, "", 400),
        (500, "Failed to parse tools: Expected 'tools' to be an array, got true; tools = true", 400),
        (500, "Unknown reasoning format: text", 400),
        (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", 400),
        (500, "Cannot use both json_schema and grammar", 400),
        (500, "got exception: Unexpected empty grammar stack after accepting piece: x (30)", 400),
        (500, "vector::_M_range_check: __n (which is 1000000) >= this->size() (which is 1000)", 400),
        (
            500,
            "input (602 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
            400,
        ),
        (500, "Compute error.", None),
        (500, "", None),
    ],
)
def test_the_engines_refusals_are_the_clients_fault_and_its_failures_are_not(status, message, expected) -> None:
    raw = json.dumps({"error": {"code": status, "message": message, "type": "server_error"}}).encode()
    translated = upstream.translate_error(status, raw)
    assert getattr(translated, "status", None) == expected


def test_a_refusal_that_is_too_long_to_be_read_whole_is_one_all_the_same() -> None:
    raw = b'{"error":{"code":500,"message":"Unknown reasoning format: ' + b"x" * 70_000
    translated = upstream.translate_error(500, raw)
    assert isinstance(translated, GatewayError)
    assert len(translated.message) <= 500


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Field 'top_k': [json.exception.type_error.302] type must be number, but is string", "top_k"),
        ("Expected 'messages' to be an array", "messages"),
        ('"documents" must be a non-empty string array', "documents"),
        ("Failed to parse tools: Expected 'tools' to be an array, got 5; tools = 5", "tools"),
        ("response_format type must be one of ...", "response_format"),
        ("'x' is what the client wrote", None),
        ("Prompt contains invalid tokens", None),
    ],
)
def test_the_field_an_engine_speaks_of_is_named(message: str, param: str | None) -> None:
    raw = json.dumps({"error": {"code": 400, "message": message, "type": "invalid_request_error"}}).encode()
    assert upstream.translate_error(400, raw).param == param


@pytest.mark.parametrize(
    "message",
    [
        "request (2050 tokens) exceeds the available context size (2048 tokens), try increasing it",
        "input (2050 tokens) is too large to process. increase the physical batch size (current batch size: 2048)",
        "input (2050 tokens) is larger than the max context size (2048 tokens). skipping",
    ],
)
def test_too_long_is_the_same_whatever_the_engine_calls_it(message: str) -> None:
    raw = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()
    translated = upstream.translate_error(500, raw)
    assert translated.code == "context_length_exceeded"
    assert "2050" in translated.message
    assert "2048" in translated.message


@pytest.mark.parametrize("tokens", [[-1], ["a"], [1.5], [True], [None]])
def test_tokens_to_make_text_of_are_whole_numbers(tokens: list) -> None:
    with pytest.raises(GatewayError) as caught:
        bodies.check(ENDPOINTS["detokenize"], {"tokens": tokens})
    assert caught.value.param == "tokens"


def test_a_prompt_of_tokens_and_texts_is_one() -> None:
    endpoint = ENDPOINTS["completions"]
    assert bodies.check(endpoint, {"model": "m", "prompt": ["a", 5, "b"]}).answers == 1
    assert bodies.check(endpoint, {"model": "m", "prompt": [["a", 5], "b"]}).answers == 2
    assert bodies.check(endpoint, {"model": "m", "prompt": {"prompt_string": "a"}}).answers == 1
