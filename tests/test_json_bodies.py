"""Whatever is sent as a body: an answer in the API's error shape, never a server error, never a traceback.

``/api/v1/auth/login`` stands for every endpoint: nobody need be logged in to send it something.
"""

from __future__ import annotations

import json

import pytest
from rest_framework.exceptions import ParseError
from rest_framework.test import APIClient

from accounts.api.entering import PublicView
from llmplatform.lib.api.parsers import parse_json
from llmplatform.lib.json_bounds import DEEPEST

URL = "/api/v1/auth/login"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _as_long_as_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The login takes shorter bodies than most."""
    monkeypatch.delattr(PublicView, "longest_body")


def send(body: bytes, content_type: str = "application/json", **headers: str):
    client = APIClient(raise_request_exception=False)
    return client.generic("POST", URL, body, content_type=content_type, REMOTE_ADDR="10.9.8.7", **headers)


def nested(depth: int) -> bytes:
    return b'{"username": ' + b"[" * depth + b"]" * depth + b', "password": "x"}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b"nonsense",
        b"username=bob&password=x",
        b'{"username": "bob"',
        b"{'username': 'bob'}",
        b"[]",
        b"null",
        b"7",
        b'"text"',
        b"\x00\xff\xfe\x80",
        b"\xff\xfe{\x00}\x00",
        b'{"username": NaN, "password": "x"}',
        b'{"username": 1e999, "password": "x"}',
        b'{"username": -Infinity, "password": "x"}',
        b'{"username": ' + b"9" * 5000 + b', "password": "x"}',
        b'{"username": "a", "username": "b", "password": "x"}',
        b'{"username": "a\\u0000b", "password": "x"}',
        b'{"username": "\\ud800", "password": "x"}',
        b'{"\\udfff": 1, "username": "a", "password": "x"}',
        b'{"username": {"$ne": null}, "password": "x"}',
        b'{"username": true, "password": "x"}',
        b'{"username": null, "password": "x"}',
        b'{"username": "a", "password": "x", "more": 1}',
        nested(DEEPEST),
        nested(100_000),
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_body_that_is_not_right(body: bytes) -> None:
    answer = send(body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "invalid_request"
    assert set(error) == {"code", "message", "details"}
    assert "Traceback" not in answer.content.decode()


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "nonsense",
        "",
    ],
)
def test_json_is_taken_whatever_it_is_called(content_type: str) -> None:
    answer = send(b'{"username": "nobody", "password": "x"}', content_type)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_byte_order_mark_does_no_harm() -> None:
    assert send(b"\xef\xbb\xbf" + b'{"username": "nobody", "password": "x"}').status_code == 401


def test_a_body_over_the_limit_is_413(settings) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 2**20
    fits = b'{"username": "' + b"x" * 2**20 + b'", "password": "x"}'
    assert send(fits).status_code == 400
    answer = send(b'{"username": "' + b"x" * 2 * 2**20 + b'", "password": "x"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "2 MB" in answer.json()["error"]["message"]


@pytest.mark.parametrize("length", ["-1", ""])
def test_a_wrong_content_length(length: str) -> None:
    answer = send(b'{"username": "nobody", "password": "x"}', CONTENT_LENGTH=length)
    assert answer.status_code in {400, 401}


def test_what_is_right_comes_through_unchanged() -> None:
    data = {"text": "很简单 😀", "list": [1, 2.5, None, True, {"a": []}], "big": 2**63, "": ""}
    assert parse_json(json.dumps(data).encode()) == data
    assert parse_json(json.dumps(data, ensure_ascii=False).encode()) == data


def test_depth_is_counted_not_guessed() -> None:
    parse_json(b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1))
    with pytest.raises(ParseError):
        parse_json(b"[" * (DEEPEST + 1) + b"1" + b"]" * (DEEPEST + 1))
