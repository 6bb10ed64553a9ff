"""Passwords, keys, tokens and codes go through the service once and stay nowhere: no log line (before anything is taken out of
it), no audit entry, no table holds one."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.apps import apps
from django.core import serializers
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.test import Client

from accounts import callers, password_reset, selectors
from accounts.models import AuditEntry, User
from llmplatform.routing import build_application
from tests.permissions.expected import SCOPES
from tests.permissions.world import World, bearer, make_world

pytestmark = pytest.mark.django_db(transaction=True)
FIRST, SECOND, THIRD = "plenty-of-rain-today", "a-better-one-for-now", "the-last-one-of-them"
TYPED = ["a-password-as-a-name", "a-wrong-password", "sk-" + "w" * 43, "a-wrong-cluster-token"]


class Lines(logging.Handler):
    """Everything that is logged, as it is: nothing is redacted yet."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{record.getMessage()} {vars(record)}\n"
        if record.exc_info:
            self.text += logging.Formatter().formatException(record.exc_info)


@pytest.fixture
def application() -> Any:
    return build_application(get_asgi_application())  # which sets up logging anew


@pytest.fixture
def lines(application: Any) -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("axes").setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def world(settings: Any) -> Iterator[World]:
    settings.REGISTRATION, settings.CLUSTER_TOKEN, settings.ALLOWED_HOSTS = "open", "the-token-of-machines", ["*"]
    cache.clear()
    yield make_world()
    callers.forget_everything()


def post(path: str, body: Any, token: str = "", **headers: str) -> Any:
    client = Client(raise_request_exception=False, headers={**(bearer(token) if token else {}), **headers})
    return client.generic("POST", f"/api/v1/{path}", json.dumps(body), content_type="application/json")


def live(world: World) -> list[str]:
    """Uses every kind of secret, rightly and wrongly; the secrets."""
    told = post("auth/register", {"username": "anna", "password": FIRST, "email": "anna@example.org"}).json()
    post("auth/login", {"username": TYPED[0], "password": FIRST})
    post("auth/login", {"username": "anna", "password": TYPED[1]})
    pair = post("auth/login", {"username": "anna", "password": FIRST}).json()
    renewed = post("auth/refresh", {"refresh": pair["refresh"]}).json()
    post("auth/refresh", {"refresh": pair["refresh"]})
    key = post("keys", {"name": "one", "scopes": [*SCOPES]}, pair["access"]).json()
    other = post(f"keys/{key['id']}/rotate", {}, pair["access"]).json()
    post("redeem", {"code": TYPED[2]}, key["key"])
    post("redeem", {"code": "x"}, TYPED[2])
    post("redeem", {"code": "x"}, key["key"], **{"x-api-key": other["key"]})
    invite = post("invites", {"note": "spring"}, world.tokens["admin"]).json()["code"]
    post("auth/register", {"username": "ben", "password": SECOND, "invite": invite, "email": ""})
    post("cluster/heartbeat", {"id": "worker-1", "system": {}}, "the-token-of-machines")
    post("cluster/heartbeat", {"id": "worker-1", "system": {}}, TYPED[3])
    post("auth/password", {"old_password": FIRST, "new_password": SECOND}, pair["access"])
    link = password_reset.link_for(User.objects.get(username="anna"), "http://localhost")
    uid, token = re.findall(r"=([^&]+)", link)
    post("auth/password/reset/confirm", {"uid": uid, "token": token, "new_password": THIRD})
    tokens = [told["access"], told["refresh"], pair["access"], pair["refresh"], renewed["access"], renewed["refresh"]]
    return [FIRST, SECOND, THIRD, *TYPED, *tokens, key["key"], other["key"], invite, token, "the-token-of-machines"]


async def through_the_gateway(application: Any, secrets: list[str]) -> None:
    transport = httpx.ASGITransport(app=application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for secret in secrets:
            await client.get("/v1/models", headers=bearer(secret))
            await client.post("/v1/messages", json={"model": "tiny"}, headers={"x-api-key": secret})


def found(text: str, secrets: list[str]) -> list[str]:
    return [secret for secret in secrets if secret in text]


def test_nowhere(world: World, application: Any, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = live(world)
    asyncio.run(through_the_gateway(application, secrets))
    good = post("auth/login", {"username": "anna", "password": THIRD}).json()["access"]

    def broken(*_arguments: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(selectors, "lacks_second_factor", broken)
    assert post("redeem", {"code": TYPED[2]}, good).status_code == 500
    secrets.append(good)
    assert "a fault of ours" in lines.text
    assert found(lines.text, secrets) == []
    assert AuditEntry.objects.count() > 8
    tables = [serializers.serialize("json", table.objects.all()) for table in apps.get_models()]
    assert found("".join(tables), secrets) == []
