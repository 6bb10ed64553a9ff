"""Whatever a client sends, it gets an answer in the API's own error shape: never a 500, never a traceback, never silence.

The operations come from /api/schema, so that a new endpoint is covered by being described there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.running_service import Service, running, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]

MODEL = "smollm2-135m-instruct"
SPARE = "spare"  # may be changed in any way
LIMIT = 10 * 1024 * 1024
INFERENCE = re.compile(r"^(/api/v1)?/v1/")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE")
# What an honest refusal may look like: 503 and 504 say that a model does not run or an answer takes too long.
BUSY = {"model_not_available", "overloaded", "timeout"}

DEEP = "[" * 10_000 + "]" * 10_000
BODIES: dict[str, bytes] = {
    "none": b"",
    "object": b"{}",
    "array": b"[]",
    "string": b'"text"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    "blank": b"   ",
    "not json": b"{not json}",
    "cut": b'{"model": "smol',
    "form": b"username=a&password=b",
    "binary": bytes(range(256)),
    "utf-16": '{"message": "x"}'.encode("utf-16"),
    "latin-1": '{"message": "é"}'.encode("latin-1"),
    "deep": b'{"model": ' + DEEP.encode() + b"}",
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "nan": b'{"temperature": NaN}',
    "infinity": b'{"temperature": -Infinity}',
    "too large a number": b'{"temperature": 1e999}',
    "digits": b'{"max_tokens": ' + b"9" * 10_000 + b"}",
    "nul key": b'{"\\u0000": 1}',
    "surrogate key": b'{"\\ud800": 1}',
    "twice": b'{"model": "a", "model": "b"}',
    "unknown field": b'{"no_such_field": 1}',
}
BODIES_OF_ALL = {name: BODIES[name] for name in ("none", "not json", "deep", "binary")}
SECOND_ADDRESS = "/api/v1/v1/"
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    -1e300,
    "",
    "text",
    "x" * 100_000,
    "a\x00b",
    "\ud800",
    "é漢🙂" * 50,
    "../../etc/passwd",
    [],
    [[]],
    [None, 1, "a", {}],
    {},
    {"a": {"b": [1]}},
]
# With LLM_API_EXAMPLES every field gets every value; else one in SHARE, each field others.
EVERY = bool(os.environ.get("LLM_API_EXAMPLES"))
SHARE = 3
PLACES = [
    "no-such",
    "%00",
    "a%00b",
    "..%2F..%2Fetc%2Fpasswd",
    "%FF%FE",
    "x" * 3000,
    "-1",
    "9" * 40,
    "%F0%9F%92%A9",
    "%20",
]
# Fields of a chat request that reach the engine; the description leaves them open.
ENGINE_FIELDS = re.findall(
    r"\S+",
    """
    messages stream_options stop temperature top_p top_k min_p seed n logprobs top_logprobs logit_bias response_format
    tools tool_choice grammar json_schema presence_penalty frequency_penalty repeat_penalty user metadata samplers
    chat_template_kwargs cache_prompt n_predict max_completion_tokens max_tokens stream ignore_eos timings_per_token
    parallel_tool_calls reasoning_format dry_sequence_breakers prompt input return_progress t_max_predict_ms
    """,
)
MESSAGES: list[Any] = [
    [{}],
    [{"role": "user"}],
    [{"content": "no role"}],
    [{"role": "no-such-role", "content": "x"}],
    [{"role": 1, "content": "x"}],
    [{"role": "user", "content": 1}],
    [{"role": "user", "content": {"a": 1}}],
    [{"role": "user", "content": [1]}],
    [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
    [{"role": "user", "content": [{"type": "no such type"}]}],
    [{"role": "user", "content": None}],
    [{"role": "user", "content": "a\x00b"}],
    [{"role": "user", "content": "\ud800"}],
    [{"role": "tool", "content": "x"}],
    [{"role": "assistant", "tool_calls": "x"}],
    [{"role": "assistant", "tool_calls": [{"function": 1}]}],
    [1],
    [[]],
]


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    fields: tuple[str, ...]
    query: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def at(self, place: str) -> str:
        return re.sub(r"\{\w+\}", lambda _match: place, self.path)


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    """One of our own: what is asked here may stop its model or change its settings."""
    with running(tmp_path_factory.mktemp("fuzz")) as started:
        wait_for(lambda: started.model_is_ready(MODEL), "the model", 120)
        with started.client() as client:
            changed = client.patch(f"/api/v1/models/{MODEL}", json={"maxTokens": 2})  # answers stay short
            assert changed.status_code == 200, changed.text
            spare = client.post("/api/v1/models", json={"modelName": SPARE, "modelFile": "no.gguf", "active": False})
            assert spare.status_code == 201, spare.text
        yield started
        assert_nothing_unexpected_in(started)


@pytest.fixture(scope="module")
def client(service) -> Iterator[httpx.Client]:
    with service.client() as opened:
        yield opened


@pytest.fixture(scope="module")
def operations(client) -> list[Operation]:
    schema = client.get("/api/schema", headers={"Accept": "application/json"}).json()
    found = [
        Operation(method.upper(), path, tuple(fields_of(schema, operation)), tuple(parameters(operation)))
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    assert any(INFERENCE.match(operation.path) for operation in found)
    return found


@pytest.fixture(scope="module")
def each_once(operations) -> list[Operation]:
    """Without the second address of the inference endpoints, which leads to the same objects."""
    found = [operation for operation in operations if not operation.path.startswith(SECOND_ADDRESS)]
    assert len(found) < len(operations)
    return found


def fields_of(schema: dict[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        body = content["schema"]
        if "$ref" in body:
            body = schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]
        yield from body.get("properties", {})


def parameters(operation: dict[str, Any]) -> Iterator[str]:
    return (found["name"] for found in operation.get("parameters", []) if found["in"] == "query")


# -- asking and judging --------------------------------------------------------------------------------------------------
def send(client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    """The answer; of an endless one only its beginning."""
    request = client.build_request(method, path, **options)
    answer = client.send(request, stream=True)
    try:
        if "text/event-stream" in answer.headers.get("content-type", ""):
            next(answer.iter_bytes(), b"")
        else:
            answer.read()
    finally:
        answer.close()
    return answer


def complaint(answer: httpx.Response, what: str) -> str:
    """What is wrong with an answer; empty when it is as it should be."""
    status, where = answer.status_code, f"{what} → {answer.status_code}"
    if status < 400 or answer.request.method == "HEAD":
        return "" if status < 500 else where
    text = answer.text
    if "Traceback" in text or 'File "' in text:
        return f"{where}: a traceback"
    try:
        error = answer.json()["error"]
        wanted = shape_of(answer.request.url.path)
        if set(error) != wanted:
            return f"{where}: {sorted(error)} instead of {sorted(wanted)}"
    except (ValueError, KeyError, TypeError):
        return f"{where}: no error object: {text[:200]!r}"
    if status >= 500 and error.get("code", error.get("type")) not in BUSY | {"overloaded_error"}:
        return f"{where}: {text[:300]}"
    return "" if error["message"] else f"{where}: no message"


def shape_of(path: str) -> set[str]:
    if not INFERENCE.match(path):
        return {"code", "message", "details"}
    return {"type", "message"} if "/messages" in path else {"message", "type", "param", "code"}


def assert_no(complaints: list[str]) -> None:
    found = [line for line in complaints if line]
    assert not found, f"{len(found)} complaints:\n" + "\n".join(found[:40])


def assert_nothing_unexpected_in(service: Service) -> None:
    unexpected = [line for line in service.log() if "exception" in line and line["source"] == "web"]
    assert unexpected == [], json.dumps(unexpected[:3], indent=1)


# -- bodies --------------------------------------------------------------------------------------------------------------
def test_every_operation_with_bodies_that_are_none(client, operations) -> None:
    complaints = []
    for operation in operations:
        takes_one = operation.fields and not operation.path.startswith(SECOND_ADDRESS)
        for name, body in BODIES.items() if takes_one else BODIES_OF_ALL.items():
            for kind in ("application/json", "text/plain") if name in BODIES_OF_ALL else ("application/json",):
                path = operation.at("no-such")
                answer = send(client, operation.method, path, content=body, headers={"Content-Type": kind})
                complaints.append(complaint(answer, f"{operation} with body {name!r} as {kind}"))
    assert_no(complaints)


def test_every_field_with_values_of_the_wrong_kind(client, each_once) -> None:
    complaints = []
    for operation in each_once:
        place = operation.at(MODEL if operation.path.endswith("/chat") else SPARE if operation.fields else "no-such")
        for name in (*operation.fields, "no_such_field"):
            for value in some_of(VALUES, f"{operation} {name}"):
                body = json.dumps({**base_of(operation), name: value})
                answer = send(client, operation.method, place, content=body)
                complaints.append(complaint(answer, f"{operation} {name}={value!r:.40}"))
                if INFERENCE.match(operation.path) and name == "no_such_field":
                    break
    assert_no(complaints)


def some_of(values: list[Any], where: str) -> list[Any]:
    return values if EVERY else values[zlib.crc32(where.encode()) % SHARE :: SHARE]


def base_of(operation: Operation) -> dict[str, Any]:
    """So that an inference request gets past its first check."""
    base = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "prompt": "hi",
        "input": "hi",
        "message": "hi",
        "content": "hi",
    }
    return {name: value for name, value in base.items() if name in operation.fields}


@pytest.mark.parametrize(("path", "stream"), [("/v1/chat/completions", False), ("/v1/messages", True)])
def test_what_the_engine_would_choke_on(client, path, stream) -> None:
    """What the engine makes of a value depends on neither; what we make of its refusal does."""
    complaints = []
    base = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "stream": stream}
    asked = [{**base, name: value} for name in ENGINE_FIELDS for value in some_of(VALUES, path + name)]
    asked += [{**base, "messages": messages} for messages in MESSAGES]
    for body in asked:
        answer = send(client, "POST", path, content=json.dumps(body))
        different = {name: value for name, value in body.items() if base.get(name) != value}
        complaints.append(complaint(answer, f"{path} {different!r:.90}"))
    assert_no(complaints)
    answer = client.post("/v1/chat/completions", json={**base, "stream": False})
    assert answer.status_code == 200, answer.text  # it has survived


def test_a_body_at_the_limit_and_one_byte_more(client) -> None:
    complaints = []
    for path in ("/api/v1/auth/login", "/v1/chat/completions", f"/api/v1/models/{MODEL}/chat"):
        start, end = b'{"no_such_field": "', b'"}'
        for size, status in ((LIMIT, {400, 413}), (LIMIT + 1, {413})):
            body = start + b"x" * (size - len(start) - len(end)) + end
            answer = send(client, "POST", path, content=body)
            complaints.append(complaint(answer, f"{path} with {size} bytes"))
            assert answer.status_code in status, f"{path}, {size} bytes: {answer.status_code} {answer.text[:200]}"
    assert_no(complaints)


# -- addresses, queries, methods -----------------------------------------------------------------------------------------
def test_every_path_with_strange_places(client, operations) -> None:
    assert_no(
        [
            complaint(send(client, operation.method, operation.at(place), content=b"{}"), f"{operation} at {place:.40}")
            for operation in operations
            if "{" in operation.path
            for place in PLACES
        ]
    )


def test_every_parameter_with_strange_values(client, each_once) -> None:
    values = [
        "",
        "-1",
        "9" * 40,
        "text",
        "%00",
        "a%00b",
        "NaN",
        "9999-99-99",
        "%FF",
        "%ED%A0%80",
        "x" * 3000,
        "[]",
        "1,2",
    ]
    assert_no(
        [
            complaint(
                send(client, operation.method, f"{operation.at('no-such')}?{name}={value}"),
                f"{operation} {name}={value:.40}",
            )
            for operation in each_once
            for name in (*operation.query, "no_such_parameter")
            for value in some_of(values, f"{operation} {name}")
        ]
    )


def test_methods_that_are_not_described(client, operations) -> None:
    described = {(operation.method, operation.path) for operation in operations}
    complaints = []
    for path in {operation.path for operation in operations}:
        for method in (*METHODS, "HEAD", "OPTIONS", "NONSENSE"):
            if (method, path) in described:
                continue
            place = re.sub(r"\{\w+\}", "no-such", path)
            answer = send(client, method, place)
            complaints.append(complaint(answer, f"{method} {path}"))
            if method in METHODS and answer.status_code < 400:
                complaints.append(f"{method} {path} → {answer.status_code}")
    assert_no(complaints)


def test_paths_that_are_not_there(client) -> None:
    paths = [
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/api/v2/x",
        "/api/v1/nothing",
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1//models",
    ]
    paths += [
        "/api/v1/v1/nothing",
        "/api/v1/%00",
        "/v1/%00",
        "/api/v1/%FF",
        "/v1/%FF",
        "/v1/models/%2e%2e/x",
        "/v1/../api/v1/x",
    ]
    complaints = []
    for path in paths:
        for method in ("GET", "POST"):
            answer = send(client, method, path)
            complaints.append(complaint(answer, f"{method} {path}"))
            assert answer.status_code in {404, 405}, (method, path, answer.status_code)
    assert_no(complaints)


# -- the wire ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/auth/login"])
@pytest.mark.parametrize(
    "rest",
    [
        b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n',
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"Content-Length: 100\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: abc\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"Authorization: Bearer \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
        b"Cookie: sessionid=\xff; csrftoken=\x01\r\nContent-Length: 2\r\n\r\n{}",
        b"Accept-Language: \xff, zh-" + b"x" * 600 + b";q=abc\r\nContent-Length: 2\r\n\r\n{}",
        b"X-Long: " + b"x" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_requests_that_are_broken_off_or_malformed(service, path, rest) -> None:
    """No answer is one too, where there is nobody to be answered."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as wire:
        head = b"POST " + path.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        answered = b""
        with contextlib.suppress(ConnectionError, OSError):  # it may have hung up on us already
            wire.sendall(head + rest)
            wire.shutdown(socket.SHUT_WR)
            while part := wire.recv(65536):
                answered += part
    assert not re.match(rb"HTTP/1.1 5", answered), answered[:500]
    assert b"Traceback" not in answered
    assert service.is_ready()
