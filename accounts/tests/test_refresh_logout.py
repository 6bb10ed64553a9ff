from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from accounts import services
from accounts.models import User

pytestmark = pytest.mark.django_db


def refresh(client: APIClient, token: str):
    return client.post("/api/v1/auth/refresh", {"refresh": token}, format="json")


def logout(client: APIClient, token: str):
    return client.post("/api/v1/auth/logout", {"refresh": token}, format="json")


def test_a_refresh_token_gives_a_new_pair_and_is_used_up(client: APIClient, user: User) -> None:
    old = services.token_pair(user).refresh
    answer = refresh(client, old)
    assert answer.status_code == 200
    new = answer.json()
    assert set(new) == {"token", "access", "refresh"}
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {new['access']}")
    assert client.get("/api/v1/auth/me").status_code == 200
    assert refresh(client, old).status_code == 401
    assert refresh(client, new["refresh"]).status_code == 200


def test_logging_out_ends_the_refresh_token(client: APIClient, user: User) -> None:
    token = services.token_pair(user).refresh
    assert logout(client, token).status_code == 204
    assert refresh(client, token).status_code == 401
    assert logout(client, token).status_code == 401


def test_a_new_password_or_a_disabled_account_ends_it(client: APIClient, user: User) -> None:
    before, later = services.token_pair(user).refresh, services.token_pair(user)
    services.set_password(user, "another-Pass-9")
    assert refresh(client, before).status_code == 401
    assert later
    token = services.token_pair(user).refresh
    User.objects.update(is_active=False)
    assert refresh(client, token).status_code == 401


def test_other_tokens_are_no_refresh_tokens(client: APIClient, user: User) -> None:
    pair = services.token_pair(user)
    forged = pair.refresh[:-4] + ("AAAA" if not pair.refresh.endswith("AAAA") else "BBBB")
    for token in (pair.access, forged, "x", "a.b.c", "é" * 50, "x" * 4097):
        answer = refresh(client, token)
        assert answer.status_code in {400, 401}, token
        assert answer.json()["error"]["code"] in {"invalid_request", "invalid_api_key"}


def test_of_two_at_once_one_is_refused(client: APIClient, user: User, monkeypatch) -> None:
    """Both found the token unused; the row that marks it used can be made once only."""
    token = services.token_pair(user).refresh
    monkeypatch.setattr(services.RefreshToken, "check_blacklist", lambda self: None)
    assert [refresh(client, token).status_code for _ in range(2)] == [200, 401]


def test_expired_tokens_are_forgotten(user: User) -> None:
    services.token_pair(user)
    OutstandingToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    services.token_pair(user)
    assert (
        OutstandingToken.objects.filter(expires_at__gt=timezone.now()).count() == OutstandingToken.objects.count() == 1
    )
