"""Tokens that must not work, on each of the three ways in: REST, the inference endpoints, the websocket."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import httpx
import jwt
import pytest
from dotenv import dotenv_values
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.running_service import Service, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def secret(service: Service) -> str:
    return str(dotenv_values(service.home / ".env")["JWT_SECRET"])


@pytest.fixture
def person(service: Service) -> dict[str, Any]:
    """A new user: id, username, password, access and refresh token."""
    body = {"username": f"t-{secrets.token_hex(4)}", "password": secrets.token_urlsafe(12), "email": ""}
    answer = httpx.post(f"{service.base_url}/api/v1/auth/register", json=body, timeout=20)
    assert answer.status_code == 201, answer.text
    registered = answer.json()
    return {**body, "id": registered["user"]["id"], "access": registered["access"], "refresh": registered["refresh"]}


def is_refused(service: Service, token: str) -> bool:
    """Everywhere alike, and in each format's own shape."""
    headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
    rest = httpx.get(f"{service.base_url}/api/v1/auth/me", headers=headers, timeout=20)
    openai = httpx.get(f"{service.base_url}/v1/models", headers=headers, timeout=20)
    statuses = {rest.status_code, openai.status_code}
    if statuses == {401}:
        assert set(rest.json()["error"]) == {"code", "message", "details"}
        assert set(openai.json()["error"]) == {"code", "message", "type", "param"}
        assert rest.json()["error"]["code"] == openai.json()["error"]["code"] == "invalid_api_key"
        assert "www-authenticate" in rest.headers
    return statuses == {401} and socket_refuses(service, token)


def socket_refuses(service: Service, token: str) -> bool:
    with connect(f"ws://127.0.0.1:{service.port}/ws/chat", proxy=None) as socket:
        socket.send(json.dumps({"type": "auth", "token": token}))
        socket.send(json.dumps({"type": "watch", "conversation": "00000000-0000-0000-0000-000000000000"}))
        code = json.loads(socket.recv(timeout=20)).get("code")
        if code != "invalid_api_key":
            assert code == "not_found"  # that is: the token was good enough to look
            return False
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)
        return True


def signed(token: str, secret: str, **changes: Any) -> str:
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode({**claims, **changes}, secret, algorithm="HS256")


def test_a_good_token_is_not_refused(service, person, secret) -> None:
    """So that the tests below fail for their own reason."""
    assert not is_refused(service, person["access"])
    assert not is_refused(service, signed(person["access"], secret))


def test_expired(service, person, secret) -> None:
    assert is_refused(service, signed(person["access"], secret, exp=int(time.time()) - 5))


def test_signed_by_somebody_else(service, person) -> None:
    assert is_refused(service, signed(person["access"], secrets.token_urlsafe(32)))


def test_not_signed_at_all(service, person) -> None:
    claims = jwt.decode(person["access"], options={"verify_signature": False})
    assert is_refused(service, jwt.encode(claims, None, algorithm="none"))


def test_a_refresh_token(service, person) -> None:
    assert is_refused(service, person["refresh"])


@pytest.mark.parametrize("user_id", [0, -1, "nobody", None, 10**30, 2**63])
def test_of_nobody(service, person, secret, user_id) -> None:
    assert is_refused(service, signed(person["access"], secret, user_id=user_id))


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é" * 10, "x" * 10_000])
def test_none_at_all(service, token) -> None:
    assert is_refused(service, token.encode("utf-8").decode("latin-1"))


def test_after_a_new_password(service, person) -> None:
    assert not is_refused(service, person["access"])
    with service.client(person["access"]) as client:
        body = {"old_password": person["password"], "new_password": secrets.token_urlsafe(12)}
        changed = client.post("/api/v1/auth/password", json=body)
    assert changed.status_code == 200, changed.text
    wait_for(lambda: is_refused(service, person["access"]), "the old token's end", 10)


@pytest.mark.parametrize("end", ["user.delete()", "user.is_active = False; user.save()"])
def test_of_a_deleted_or_disabled_user(service, person, end) -> None:
    assert not is_refused(service, person["access"])
    code = f"from accounts.models import User; user = User.objects.get(username='{person['username']}'); {end}"
    finished = service.command("shell", "-c", code)
    assert finished.returncode == 0, finished.stderr
    wait_for(lambda: is_refused(service, person["access"]), "the token's end", 10)
