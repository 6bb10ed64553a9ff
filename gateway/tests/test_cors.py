"""A page of another site, before a real web server. Who may be one: tests/test_cross_origin.py."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from gateway.cors import EXPOSED
from gateway.tests.conftest import Service, Web, web

pytestmark = pytest.mark.e2e

HERE = "https://app.example.org"
ALLOW = "access-control-allow-origin"
ASKED = "authorization,content-type,x-stainless-lang"


@pytest.fixture(scope="module")
def open_to_pages(running: Service) -> Iterator[Web]:
    with web(running.home, "cors", CORS_ALLOWED_ORIGINS=HERE) as started:
        yield started


@pytest.mark.parametrize("stream", [False, True])
def test_answers_and_streams_can_be_read(service: Service, open_to_pages: Web, stream: bool) -> None:
    headers = {"Authorization": f"Bearer {service.tokens['ann']}", "Origin": HERE}
    body = {"model": "alpha", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": stream}
    with httpx.Client(base_url=open_to_pages.url, headers=headers, timeout=30) as client:
        answer = client.post("/v1/chat/completions", json=body)
        native = client.post("/api/v1/models/alpha/chat", json={"message": "hi", "max_tokens": 3, "stream": stream})
    for found in (answer, native):
        assert found.status_code == 200, found.text
        assert found.headers[ALLOW] == HERE
        assert {"x-request-id", "x-queue-ms", "x-replica", "openai-processing-ms"} <= set(found.headers) & set(EXPOSED)
    assert "word" in answer.text
    service.usage(answer.headers["x-request-id"])


def test_a_preflight_by_a_real_server(open_to_pages: Web) -> None:
    headers = {"Origin": HERE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": ASKED}
    answer = httpx.options(f"{open_to_pages.url}/v1/chat/completions", headers=headers)
    assert (answer.status_code, answer.headers[ALLOW], answer.content) == (204, HERE, b"")
    assert answer.headers["x-request-id"]


def test_too_large_a_body_is_told_to_the_page_too(service: Service, open_to_pages: Web) -> None:
    raw = json.dumps({"model": "alpha", "messages": [{"role": "user", "content": "x" * 11_000_000}]}).encode()
    headers = {"Authorization": f"Bearer {service.tokens['ann']}", "Origin": HERE}
    answer = httpx.post(f"{open_to_pages.url}/v1/chat/completions", content=raw, headers=headers, timeout=30)
    assert (answer.status_code, answer.headers[ALLOW]) == (413, HERE)
    assert answer.headers["x-request-id"]
    answer = httpx.post(f"{open_to_pages.url}/api/v1/auth/login", content=raw, headers=headers, timeout=30)
    assert ALLOW not in answer.headers
