"""Pages of other sites on the inference path: which may ask, what they see, and that nobody else notices."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.cors import EXPOSED, CrossOrigin
from llmplatform.routing import build_application

HERE, THERE = "https://app.example.org", "https://elsewhere.example.org"
ALLOW, EXPOSE, CREDENTIALS = (
    f"access-control-{what}" for what in ("allow-origin", "expose-headers", "allow-credentials")
)
PATHS = [
    "/v1/chat/completions",
    "/v1/infill",
    "/api/v1/v1/messages",
    "/v1/models",
    "/v1/no-such-path",
    "/api/v1/models/m/chat",
]
ASKED = "authorization,content-type,x-stainless-lang"


async def django(scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def ask(method: str, path: str, **headers: str) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=build_application(django))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers, content=b"{}" if method == "POST" else None)

    return asyncio.run(call())


def preflight(path: str, origin: str = HERE, method: str = "POST") -> httpx.Response:
    asked = {"access-control-request-method": method, "access-control-request-headers": ASKED}
    return ask("OPTIONS", path, origin=origin, **asked)


@pytest.fixture(autouse=True)
def _no_static_files(settings: Any, tmp_path: Any) -> None:
    settings.STATIC_ROOT = tmp_path


@pytest.fixture
def allowed(settings: Any) -> list[str]:
    settings.CORS_ALLOWED_ORIGINS = [HERE, "http://localhost:3000"]
    return settings.CORS_ALLOWED_ORIGINS


@pytest.mark.parametrize("path", PATHS)
def test_a_preflight_needs_no_key(allowed: list[str], path: str) -> None:
    answer = preflight(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers[ALLOW] == HERE
    assert answer.headers["access-control-allow-headers"] == ASKED
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Origin" in answer.headers["vary"]
    assert CREDENTIALS not in answer.headers


def test_an_origin_that_is_not_on_the_list_is_not_named(allowed: list[str]) -> None:
    for origin in (THERE, "null", HERE + ".evil.example", HERE.upper(), ""):
        answer = preflight("/v1/chat/completions", origin)
        assert answer.status_code == 204
        assert ALLOW not in answer.headers
        assert ALLOW not in ask("POST", "/v1/chat/completions", origin=origin).headers


def test_refusals_can_be_read_by_the_page(allowed: list[str]) -> None:
    for path, status in (("/v1/chat/completions", 401), ("/v1/no-such-path", 404), ("/api/v1/models/m/chat", 401)):
        answer = ask("POST", path, origin=HERE)
        assert answer.status_code == status
        assert answer.headers[ALLOW] == HERE
        assert answer.headers[EXPOSE] == ", ".join(EXPOSED)
        assert CREDENTIALS not in answer.headers
        assert answer.json()["error"]


def test_every_origin_but_no_cookies(settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["*"]
    for answer in (preflight("/v1/messages", THERE), ask("POST", "/v1/messages", origin=THERE, cookie="sessionid=x")):
        assert answer.headers[ALLOW] == "*"
        assert CREDENTIALS not in answer.headers


@pytest.mark.parametrize("path", ["/", "/api/v1/auth/login", "/api/v1/models/m", "/metrics", "/v2/models"])
def test_the_rest_of_the_service_is_not_for_other_sites(allowed: list[str], path: str) -> None:
    answer = preflight(path)
    assert answer.status_code == 418, "another part answers it"
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_off_means_as_if_there_were_no_such_thing(settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = []
    answer = preflight("/v1/chat/completions")
    assert answer.status_code == 405
    for found in (answer, ask("POST", "/v1/chat/completions", origin=HERE)):
        assert not any(name.startswith("access-control") for name in found.headers)


def test_whoever_says_no_origin_is_passed_by(allowed: list[str]) -> None:
    """The very same objects reach the application."""
    seen = []

    async def application(*given: Any) -> None:
        seen.append(given)

    given = ({"type": "http", "method": "POST", "headers": [(b"host", b"localhost")]}, object(), object())
    asyncio.run(CrossOrigin(application, allowed)(*given))
    assert seen == [given]
    assert all(mine is theirs for mine, theirs in zip(seen[0], given, strict=True))
