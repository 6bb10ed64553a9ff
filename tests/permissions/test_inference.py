"""Who may call the inference path and the websocket; the same table as in ``test_matrix.py``."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from channels.testing import WebsocketCommunicator
from django.core.asgi import get_asgi_application

from chat.routing import websocket_application
from llmplatform.routing import build_application
from tests.permissions import USER
from tests.permissions.expected import (
    PAGE_CALLERS,
    PASSES,
    REST_CALLERS,
    assert_none,
    browser_of,
    headers_of,
    reaches,
)
from tests.permissions.rest_rows import INFERENCE_ROWS, WEBSOCKET_ROWS
from tests.permissions.world import World, shut_out

# -- inference and websockets ------------------------------------------------------------------------------------------
BODY = {
    "model": "no-such-model", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi",
    "documents": ["hi"], "content": "hi", "tokens": [1], "input_prefix": "hi", "input_suffix": "hi",
}  # fmt: skip
TYPES = {401: {"authentication_error", "invalid_api_key"}, 403: {"permission_error", "permission_denied"}}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("caller", [caller for caller in REST_CALLERS if caller != "another user"])
def test_inference(world: World, caller: str) -> None:
    """Through the application that decides which part of the service answers. Whoever may learns that there is no such model."""
    shut_out(world)
    sent = [
        (method, path, headers, REST_CALLERS[caller](least, scopes.split(), False))
        for method, path, least, scopes in INFERENCE_ROWS
        for headers in headers_of(caller, world, least, scopes.split())
    ]

    async def ask() -> list[str]:
        transport = httpx.ASGITransport(app=build_application(no_django))
        complaints = []
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for method, path, headers, wanted in sent:
                answer = await call(client, method, path, headers)
                if not is_inference_answer(answer, path, wanted):
                    complaints.append(f"{caller}: {method} {path} → {answer.status_code} {answer.text[:200]}")
        return complaints

    assert_none(asyncio.run(ask()))


async def call(client: httpx.AsyncClient, method: str, path: str, headers: Any = None) -> httpx.Response:
    body = {"message": "hi"} if path.endswith("/chat") else BODY
    url = path.replace("<str:name>", "no-such-model")
    return await client.request(method, url, json=body if method == "POST" else None, headers=headers)


def is_inference_answer(answer: httpx.Response, path: str, wanted: str | int) -> bool:
    if wanted == PASSES:
        return answer.status_code == (200 if path.endswith("/models") else 404)
    error = answer.json()["error"]
    return answer.status_code == wanted and bool(TYPES[wanted] & {error.get("code"), error.get("type")})


async def no_django(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("the inference path is not answered by Django")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("caller", ["anyone", "user", "operator", "admin", "waiting", "blocked"])
def test_inference_by_the_browsers_session(world: World, caller: str) -> None:
    """Below /api/ only: programs have keys, and no other page's request shall bring a cookie to /v1."""
    browser = browser_of(caller, world)
    shut_out(world)
    cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in browser.cookies.items())
    passes = reaches(PAGE_CALLERS[caller], USER)

    async def statuses() -> dict[str, int]:
        transport = httpx.ASGITransport(app=build_application(no_django))
        csrf = {"Cookie": f"{cookie}; csrftoken={'a' * 32}", "X-CSRFToken": "a" * 32}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=csrf) as client:
            return {path: (await call(client, method, path)).status_code for method, path, *_who in INFERENCE_ROWS}

    found = asyncio.run(statuses())
    wanted = {path: {200, 404} if passes and path.startswith("api/") else {401} for path in found}
    assert_none([f"{caller}: {path} → {found[path]}" for path in found if found[path] not in wanted[path]])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("caller", [caller for caller in REST_CALLERS if caller != "another user"])
def test_websockets(world: World, caller: str) -> None:
    """Whoever may is told that a message of theirs is not there; everybody else is cut off."""
    shut_out(world)

    async def said(path: str, token: str) -> list[str | int]:
        socket = WebsocketCommunicator(websocket_application, f"/{path}", [(b"host", b"localhost")])
        await socket.connect(5)
        for message in ({"type": "auth", "token": token}, {"type": "stop", "message": str(uuid4())}):
            await socket.send_to(text_data=json.dumps(message))
        outputs = [await socket.receive_output(5)]
        if "not_found" not in outputs[0]["text"]:
            outputs.append(await socket.receive_output(5))
        await socket.disconnect(timeout=10)
        return [output.get("code") or json.loads(output["text"])["code"] for output in outputs]

    for path, least, scopes in WEBSOCKET_ROWS:
        for headers in headers_of(caller, world, least, scopes.split()):
            passes = REST_CALLERS[caller](least, scopes.split(), False) == PASSES
            found = asyncio.run(said(path, headers.get("Authorization", "Bearer none").removeprefix("Bearer ")))
            assert found == (["not_found"] if passes else ["invalid_api_key", 4401])


def test_static_files_are_for_anyone(settings: Any, tmp_path: Any) -> None:
    settings.STATIC_ROOT = tmp_path
    (tmp_path / "site.css").write_text("body {}")

    async def status(path: str) -> int:
        transport = httpx.ASGITransport(app=build_application(get_asgi_application()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.get(path)).status_code

    assert asyncio.run(status("/static/site.css")) == 200
    assert asyncio.run(status("/static/../settings.py")) == 404
