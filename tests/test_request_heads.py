"""The head of a request is bounded before anything looks at it: a plain refusal, and the connection ends."""

from __future__ import annotations

import secrets

import httpx
import pytest

from llmplatform.service.web import LARGEST_HEAD, LONGEST_HEADER, MOST_HEADERS
from tests.raw_http import exchange, get
from tests.running_service import Service

pytestmark = pytest.mark.e2e
REST, OPENAI = "/api/v1/auth/me", "/v1/models"
ANTHROPIC = "/v1/messages"
SOCKET = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: YQ=="]


TOO_LARGE = {
    "one header of 64 KB": [b"X-Long: " + b"x" * 65536],
    "a cookie of 64 KB": [b"Cookie: a=" + b"x" * 65536],
    "1,000 headers": [b"X-%d: y" % number for number in range(1000)],
    "many long ones": [b"X-%d: " % number + b"x" * 8000 for number in range(100)],
    "one line without an end": [b"X-Endless: " + b"x" * 200_000],
    "many folded lines": [b"X-Folded: x", *[b" " + b"x" * 1000] * 50],
}


@pytest.mark.parametrize("path", [REST, OPENAI, ANTHROPIC, "/login"])
@pytest.mark.parametrize("headers", TOO_LARGE.values(), ids=list(TOO_LARGE))
def test_too_large_a_head_is_refused_and_ends_the_connection(service: Service, path: str, headers: list[bytes]) -> None:
    answer = exchange(service, get(path, *headers) + get("/healthz"))
    assert answer.status == 431
    assert answer.is_last
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert error["message"] == "The headers of the request are too large."
    shape = {REST: "details", "/login": "details", OPENAI: "param", ANTHROPIC: "type"}
    assert shape[path] in error


CREDENTIALS = [
    b"Authorization: Bearer " + b"x" * 65536,
    b"authorization: " + b"'" * 65536,
    b"X-API-Key: sk-" + b"x" * 65536,
    b"Authorization: Bearer \xff\xfe",
    b"Authorization: Bearer '\" OR 1=1 --",
    b"x-api-key: \xe9",
]


@pytest.mark.parametrize("path", [REST, OPENAI, "/metrics"])
@pytest.mark.parametrize("header", CREDENTIALS, ids=lambda header: repr(header[:25]))
def test_a_credential_however_long_is_a_wrong_one(service: Service, path: str, header: bytes) -> None:
    # From a named address: /metrics is open to this machine itself.
    answer = exchange(service, get(path, b"Connection: close", b"X-Forwarded-For: 192.0.2.7", header))
    assert answer.status == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_for_a_websocket_too(service: Service) -> None:
    assert exchange(service, get("/ws/chat", *SOCKET, *TOO_LARGE["1,000 headers"])).status == 431


def test_too_long_an_address(service: Service) -> None:
    answer = exchange(service, get("/" + "x" * LARGEST_HEAD))
    assert (answer.status, answer.is_last) == (431, True)


def test_what_just_fits_is_answered(service: Service) -> None:
    headers = [b"X-%d: y" % number for number in range(MOST_HEADERS - 2)]
    assert exchange(service, get("/healthz", b"Connection: close", *headers)).status == 200
    headers = [b"X-Long: " + b"x" * (LONGEST_HEADER - 10)]
    assert exchange(service, get("/healthz", b"Connection: close", *headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [b"No colon"],
        [b"X: a\x00b"],
        [b"Bad name: x"],
        [b"Content-Length: -1"],
        [b"Content-Length: 1", b"Content-Length: 2"],
    ],
    ids=repr,
)
def test_what_is_no_header_is_refused_once(service: Service, headers: list[bytes]) -> None:
    answer = exchange(service, get("/healthz", *headers) + get("/healthz"))
    assert (answer.status, answer.is_last) == (400, True)


def test_other_connections_do_not_notice(service: Service) -> None:
    with httpx.Client(base_url=service.base_url) as client:
        assert client.get("/healthz").status_code == 200
        exchange(service, get(REST, *TOO_LARGE["1,000 headers"]))
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("name", [b"Daphne-Root-Path", b"X-Forwarded-Host", b"X-Forwarded-Prefix", b"X_Forwarded_Host"])
def test_no_header_moves_the_pages_elsewhere(service: Service, name: bytes) -> None:
    marker = secrets.token_hex(8)
    for path in ("/login", "/account"):
        answer = exchange(service, get(path, b"Connection: close", name + b": //" + marker.encode()))
        assert marker not in answer.body.decode() + str(answer.headers)
