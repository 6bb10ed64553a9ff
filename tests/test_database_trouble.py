"""While the database does not answer, nobody is told that they are somebody else: 503 and when to come back, never 401."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from channels.testing import WebsocketCommunicator
from django.core.asgi import get_asgi_application
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.backends.utils import CursorWrapper
from django.test import Client

from accounts import callers
from chat.routing import websocket_application
from llmplatform.routing import build_application
from tests.permissions.expected import SCOPES, assert_none
from tests.permissions.world import bearer, key_of, make_world

pytestmark = pytest.mark.django_db(transaction=True)
MESSAGE = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
ASKED = {
    "REST": ("GET", "/api/v1/auth/me", None),
    "OpenAI": ("GET", "/v1/models", None),
    "Anthropic": ("POST", "/v1/messages", MESSAGE),
    "native": ("POST", "/api/v1/models/tiny/chat", {"message": "hi"}),
    "metrics": ("GET", "/metrics", None),
    "machine": ("POST", "/api/v1/cluster/heartbeat", {"id": "worker-1", "system": {}}),
}
TOLD = "the server closed the connection"
PAGES = ("/account", "/chat/", "/admin/", "/admin/accounts/user/")


@pytest.fixture(params=[OperationalError, InterfaceError], ids=lambda error: error.__name__)
def world(request: pytest.FixtureRequest, settings: Any) -> Any:
    """With ``broken()`` the database goes away, for every thread."""
    settings.METRICS_ALLOW, settings.ALLOWED_HOSTS = [], ["localhost"]
    made = make_world()
    made.key = key_of(made.people["admin"], *SCOPES)
    browser = Client()
    browser.force_login(made.people["admin"])
    made.cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in browser.cookies.items())
    callers.forget_everything()
    with pytest.MonkeyPatch.context() as patch:

        def away(*_arguments: Any, **_more: Any) -> None:
            raise request.param(TOLD)

        made.broken = lambda: patch.setattr(CursorWrapper, "execute", away)
        yield made
    callers.forget_everything()


def ask(method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=build_application(get_asgi_application()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, json=body, headers=headers)

    return asyncio.run(asked())


def test_programs(world: Any) -> None:
    cookie = f"{world.cookie}; csrftoken={'a' * 32}"
    ways = {
        "token": bearer(world.tokens["admin"]),
        "key": bearer(world.key),
        "key in x-api-key": {"x-api-key": world.key},
        "session": {"Cookie": cookie, "X-CSRFToken": "a" * 32},
    }
    world.broken()
    complaints = []
    for what, (method, path, body) in ASKED.items():
        for way, headers in ways.items():
            if way == "session" and not path.startswith("/api/"):
                continue
            answer = ask(method, path, body, headers)
            if answer.status_code != 503 or "retry-after" not in answer.headers or TOLD in answer.text:
                complaints.append(f"{what} with {way}: {answer.status_code} {answer.text[:200]}")
    assert_none(complaints)


def test_a_login(world: Any) -> None:
    world.broken()
    answer = ask("POST", "/api/v1/auth/login", {"username": "an administrator", "password": "x"}, {})
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_pages(world: Any) -> None:
    world.broken()
    for path in PAGES:
        answer = ask("GET", path, None, {"Cookie": world.cookie, "Accept": "text/html"})
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True), path
        assert "<h1>" in answer.text
        assert TOLD not in answer.text


def test_the_websocket(world: Any) -> None:
    async def said() -> str:
        socket = WebsocketCommunicator(websocket_application, "/ws/chat", [(b"host", b"localhost")])
        await socket.connect(5)
        world.broken()
        await socket.send_json_to({"type": "auth", "token": world.key})
        answer = await socket.receive_json_from(5)
        await socket.disconnect(timeout=10)
        return f"{answer['code']} {answer['retry']}"

    assert asyncio.run(said()) == "internal_error True"


def test_what_is_no_trouble_of_the_database_is_a_fault(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong query is our own doing: coming back later would not help."""

    def wrong(*_arguments: Any, **_more: Any) -> None:
        raise DatabaseError("no such column")

    monkeypatch.setattr(CursorWrapper, "execute", wrong)
    assert ask("GET", "/api/v1/auth/me", None, bearer(world.key)).status_code == 500
