"""Requests that cannot be answered: refused in the words of their protocol, before they take a slot where that can be known, and
with nothing left open. What bodies are refused for by themselves stands in test_bodies.py and test_any_body.py.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import socket
import struct
from collections.abc import Iterator

import httpx
import pytest

from gateway.tests.conftest import Service, connect, hold, until

pytestmark = pytest.mark.e2e

CHAT, MESSAGES = "/v1/chat/completions", [{"role": "user", "content": "Is it so?"}]
PICTURE = "data:image/png;base64,"
RESET = struct.pack("ii", 1, 0)  # a connection that is closed without a word
HUGE = base64.b64encode(b"x" * 8 * 2**20).decode()
RIGHT: dict[str, dict] = {
    CHAT: {"messages": MESSAGES},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 5},
    "/v1/responses": {"input": "Is it so?"},
    "/v1/completions": {"prompt": "Is it so?"},
    "/v1/embeddings": {"input": "Is it so?"},
    "/v1/rerank": {"query": "Is it", "documents": ["so?"]},
    "/v1/tokenize": {"content": "Is it so?"},
}


def post(service: Service, path: str, body: object) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with service.http() as http:
        return http.post(path, content=raw)


def asked(service: Service) -> int:
    """How many requests have come to any engine."""
    return sum(len(standin.seen()) for standin in service.standins.values())


def told(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code (Anthropic's type) and message, in the form that the path's protocol has."""
    error = answer.json()["error"]
    if answer.request.url.path == "/v1/messages":
        assert set(answer.json()) == {"type", "error"}
        return answer.status_code, error["type"], error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"], error["message"]


# -- what no engine sees -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", RIGHT)
def test_a_model_must_be_named_and_known(service: Service, path: str) -> None:
    anthropic = path == "/v1/messages"
    before = asked(service)
    for model in ({}, {"model": None}, {"model": ""}):
        assert told(post(service, path, RIGHT[path] | model))[:2] == (
            400,
            "invalid_request_error" if anthropic else "invalid_request",
        )
    for name in ("nobody", "x" * 100_000, "alpha\0", "../alpha", "\ud800"):
        answer = post(service, path, RIGHT[path] | {"model": name})
        assert told(answer)[:2] == (404, "not_found_error" if anthropic else "model_not_found")
    assert asked(service) == before


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_messages_are_a_list_of_objects(service: Service, path: str) -> None:
    before = asked(service)
    for messages in ([], None, "hello", {}, [[]], ["hello"], [None], [MESSAGES]):
        answer = post(service, path, {**RIGHT[path], "model": "alpha", "messages": messages})
        assert told(answer)[0] == 400
        assert "messages" in told(answer)[2]
    assert asked(service) == before


@pytest.mark.parametrize("path", RIGHT)
def test_numbers_are_numbers(service: Service, path: str) -> None:
    before = asked(service)
    for number in (b"NaN", b"-Infinity", b"1e999", b"-1e999"):
        raw = json.dumps({**RIGHT[path], "model": "alpha", "temperature": 7}).encode().replace(b"7}", number + b"}")
        assert told(post(service, path, raw))[0] == 400
    assert asked(service) == before


LONG_HISTORY = [{"role": ("user", "assistant")[number % 2], "content": "x"} for number in range(100_000)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"messages": LONG_HISTORY}, 400),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE + HUGE}}]}]},
            413,
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}]}, 400),
        ({"messages": MESSAGES, "tool_choice": {"type": "function", "name": "missing"}, "tools": []}, 400),
        ({"messages": MESSAGES, "id_slot": 0}, 400),
    ],
    ids=["100,000 messages", "a picture of 8 MB", "a picture elsewhere", "a tool that is not there", "another's slot"],
)
def test_refused_before_a_slot_is_taken(service: Service, body: dict, status: int) -> None:
    before = asked(service)
    assert told(post(service, CHAT, {"model": "alpha", **body}))[0] == status
    assert asked(service) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": []}]},
        {"messages": [{"role": "user", "content": {"type": []}}]},
        {"messages": [{"role": {}, "content": [{"type": {}, "text": "x"}]}], "tool_choice": {"type": []}},
        {"messages": MESSAGES, "tool_choice": {"type": {"a": 1}}, "tools": [{"type": []}, 1, None]},
        {"messages": MESSAGES, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}},
        {"messages": MESSAGES, "response_format": [], "stream_options": 7, "stop": {}, "tools": "x"},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_only_the_engine_understands_is_left_to_it(service: Service, fields: dict, stream: bool) -> None:
    """Whatever the real one makes of it (tests/test_api_fuzz.py): it is no fault of ours."""
    before = asked(service)
    answer = post(service, CHAT, {"model": "alpha", "stream": stream, **fields})
    assert answer.status_code in {200, 400, 502}, answer.text
    assert asked(service) >= before + (answer.status_code == 200)


# -- too long a prompt -------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def busy(service: Service) -> Iterator[None]:
    """The only slot of ``narrow`` is taken."""
    narrow = service.standins["narrow"]
    narrow.tell(first_token_seconds=60)
    with hold(service):
        until(lambda: len(narrow.seen()) == 1)
        yield


def request(service: Service, data: bytes, *headers: str) -> bytes:
    lines = [f"POST {CHAT} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {service.tokens['ann']}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_too_long_a_prompt_does_not_wait_for_its_turn(service: Service, path: str) -> None:
    text = "word " * 3000
    long = {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"prompt": text}
    with busy(service):
        before = asked(service)
        answer = post(service, path, {"model": "narrow", **long})
        assert told(answer)[:2] == (400, "context_length_exceeded")
        assert "2048" in told(answer)[2]
        assert answer.json()["error"]["param"] == ("messages" if path == CHAT else "prompt")
        assert asked(service) == before
    record = service.usage(answer.headers["x-request-id"])
    assert (record["outcome"], record["status"], record["cost"]) == ("refused", 400, 0)


def test_one_that_only_looks_long_gets_its_turn(service: Service) -> None:
    body = {"model": "narrow", "messages": [{"role": "user", "content": "x" * 20_000}]}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with busy(service):
            waiting = pool.submit(post, service, CHAT, body)
            until(lambda: service.metric("llm_requests_queued") == 1)
            service.standins["narrow"].tell(first_token_seconds=0)
        assert waiting.result().status_code == 200


@pytest.mark.parametrize("how", ["garbage", "closed", "empty"])
def test_nobody_is_refused_for_an_engine_that_cannot_count(service: Service, how: str) -> None:
    body = {"model": "narrow", "messages": [{"role": "user", "content": "x" * 20_000}]}
    service.standins["narrow"].tell(counting_broken=how)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with busy(service):
            waiting = pool.submit(post, service, CHAT, body)
            until(lambda: service.metric("llm_requests_queued") == 1)
            service.standins["narrow"].tell(first_token_seconds=0, counting_broken=None)
        assert waiting.result().status_code == 200


# -- bodies that are cut off ----------------------------------------------------------------------------------------------------
CUT = {
    "length": (b'{"model": "narr', "Content-Length: 100"),
    "in a chunk": (b'20\r\n{"model": "narr', "Transfer-Encoding: chunked"),
    "between chunks": (b'f\r\n{"model": "narr\r\n', "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("how", CUT)
@pytest.mark.parametrize("abruptly", [False, True])
def test_a_body_that_is_cut_off_reaches_nobody(service: Service, how: str, abruptly: bool) -> None:
    before, holds = asked(service), service.metric("llm_requests_total")
    data, header = CUT[how]
    with connect(service) as connection:
        connection.sendall(request(service, data, header))
        if abruptly:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        else:
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1000) == b""
    assert service.metric("llm_requests_under_way") == 0
    assert (asked(service), service.metric("llm_requests_total")) == (before, holds)


@pytest.mark.parametrize("chunk", [b"zz\r\n{}\r\n0\r\n\r\n", b"-5\r\n{}\r\n0\r\n\r\n", b"2\r\n{}x\r\n0\r\n\r\n"])
def test_chunks_that_are_none_end_the_connection(service: Service, chunk: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(request(service, chunk, "Transfer-Encoding: chunked"))
        received = b""
        while part := connection.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 400 ")


# -- clients that go ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "phase",
    [
        {},
        {"generate": "hang"},
        {"first_token_seconds": 60},
        {"token_seconds": 5},
        {"progress": 1000, "first_token_seconds": 60},
        {"pings": 1000, "first_token_seconds": 60},
        {"silent_after": 2},
        {"after_finish": "silent"},
        {"counting_broken": "closed", "token_seconds": 5},
    ],
    ids=lambda phase: ",".join(phase) or "at once",
)
def test_whoever_goes_leaves_nothing(service: Service, phase: dict, stream: bool) -> None:
    """The fixture looks that nothing is left; here, that the engine heard of it."""
    narrow = service.standins["narrow"]
    narrow.tell(**phase)
    with hold(service, stream=stream, return_progress=True):
        until(narrow.seen)
    until(lambda: narrow.seen()[-1]["state"] in {"closed", "done"})
    until(lambda: service.metric("llm_slots_busy") == 0)
    narrow.tell(counting_broken=None)


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_resets_the_connection_at_once_leaves_nothing(service: Service, stream: bool) -> None:
    """The request and its end come in one."""
    narrow = service.standins["narrow"]
    narrow.tell(generate="hang")
    before = len(narrow.seen())
    for _ in range(20):
        with hold(service, stream=stream) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert service.http().get("/v1/models").status_code == 200
    until(lambda: service.metric("llm_requests_under_way") == 0)
    until(lambda: all(one["state"] == "closed" for one in narrow.seen()[before:]))
