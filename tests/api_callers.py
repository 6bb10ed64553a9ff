"""Callers of every role for endpoint tests, logged in the way programs are: with a bearer token."""

from __future__ import annotations

from typing import Any

from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import RefreshToken

from accounts.models import User, Wallet

ROLES = ("anyone", "user", "operator", "admin")


def token_of(role: str) -> str:
    """The access token of a person of that role, made at the first call."""
    user, created = User.objects.get_or_create(
        username=f"{role}-person",
        defaults={"is_staff": role in {"operator", "admin"}, "is_superuser": role == "admin"},
    )
    if created:
        user.set_unusable_password()
        user.save()
        Wallet.objects.get_or_create(user=user, defaults={"available": 1_000_000})
    return str(RefreshToken.for_user(user).access_token)


def client_of(role: str, **headers: Any) -> APIClient:
    client = APIClient(**headers)
    if role != "anyone":
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {token_of(role)}")
    return client


def statuses(method: str, path: str, body: Any = None) -> dict[str, int]:
    """What each role gets for the same call."""
    return {role: getattr(client_of(role), method)(path, body, format="json").status_code for role in ROLES}


def forbidden_below(role: str) -> dict[str, int]:
    """401 for nobody, 403 for people below ``role``."""
    below = ROLES[: ROLES.index(role)]
    return {name: 401 if name == "anyone" else 403 for name in below}


def assert_error(response: Any, status: int, code: str) -> dict[str, Any]:
    body = response.json()
    assert (response.status_code, body["error"]["code"]) == (status, code), body
    assert set(body["error"]) == {"code", "message", "details"}
    return body["error"]
