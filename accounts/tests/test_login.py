from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import authenticate
from django.test import RequestFactory
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.tokens import AccessToken

from accounts import attempts, services
from accounts.models import User
from accounts.tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
URL = "/api/v1/auth/login"


def log_in(client: APIClient, username: str, password: str = PASSWORD, **extra: str):
    return client.post(URL, {"username": username, "password": password}, format="json", **extra)


@pytest.mark.parametrize("name", ["bob", "BOB", "bob@example.com", "Bob@Example.COM"])
def test_a_name_or_an_address_in_any_case(client: APIClient, user: User, name: str) -> None:
    answer = log_in(client, name)
    assert answer.status_code == 200
    assert answer.json()["user"]["id"] == user.pk
    assert answer.json()["token"] == answer.json()["access"]


@pytest.mark.parametrize("name", ["bob", "nobody", "bob%", "' OR 1=1 --", "b_b", "%", "bob\u00a0"])
def test_a_wrong_password_and_a_wrong_name_read_alike(client: APIClient, user: User, name: str) -> None:
    answer = log_in(client, name, "wrong")
    assert answer.status_code == 401
    assert answer.json()["error"] == {
        "code": "invalid_api_key",
        "message": "User name or password is wrong.",
        "details": {},
    }
    assert answer["WWW-Authenticate"] == 'Bearer realm="api"'


def test_an_unknown_name_costs_as_much_hashing_as_a_known_one(client: APIClient, user: User, monkeypatch) -> None:
    hashed: list[str] = []
    from django.contrib.auth.hashers import MD5PasswordHasher

    encode = MD5PasswordHasher.encode
    monkeypatch.setattr(MD5PasswordHasher, "encode", lambda *args: hashed.append("x") or encode(*args))
    log_in(client, "bob", "wrong")
    for_known = len(hashed)
    log_in(client, "nobody", "wrong")
    assert len(hashed) - for_known == for_known == 1


def test_an_expired_token_in_a_header_does_not_stop_a_login(client: APIClient, user: User) -> None:
    assert log_in(client, "bob", HTTP_AUTHORIZATION="Bearer rubbish").status_code == 200


def test_a_disabled_account_is_told_only_to_who_knows_the_password(client: APIClient, make_user) -> None:
    make_user("eve", is_active=False)
    assert log_in(client, "eve", "wrong").status_code == 401
    assert log_in(client, "eve").status_code == 403


def test_a_password_that_must_change_lets_in_and_says_so(client: APIClient, make_user) -> None:
    make_user("new", must_change_password=True)
    assert log_in(client, "new").json()["user"]["must_change_password"] is True


def test_nobody_can_take_a_name_that_reads_like_another_s_address(client: APIClient, user: User) -> None:
    with pytest.raises(services.ValidationError):
        services.create_user("bob@example.com", PASSWORD)


def test_guessing_is_stopped_and_good_logins_do_not_count(client: APIClient, user: User, monkeypatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 3)
    assert [log_in(client, "bob").status_code for _ in range(5)] == [200] * 5
    assert [log_in(client, "bob", "wrong").status_code for _ in range(4)] == [401, 401, 401, 429]
    refused = log_in(client, "bob")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert log_in(client, "bob", REMOTE_ADDR="10.0.0.9").status_code == 200, "others are not locked out"


def test_a_forwarded_header_is_no_new_address(client: APIClient, user: User, monkeypatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 1)
    answers = [log_in(client, "bob", "wrong", HTTP_X_FORWARDED_FOR=f"10.0.0.{n}").status_code for n in range(3)]
    assert answers == [401, 429, 429]


def test_forms_go_through_the_same_counter(user: User, monkeypatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 1)
    request = RequestFactory().post("/login")
    assert authenticate(request, username="bob", password="wrong") is None
    assert authenticate(request, username="bob", password=PASSWORD) is None
    assert authenticate(None, username="bob", password=PASSWORD) == user


def test_last_login_is_written_at_most_once_an_hour(client: APIClient, user: User) -> None:
    log_in(client, "bob")
    user.refresh_from_db()
    first = user.last_login
    assert first
    log_in(client, "bob")
    user.refresh_from_db()
    assert user.last_login == first
    User.objects.update(last_login=timezone.now() - timedelta(hours=2))
    log_in(client, "bob")
    user.refresh_from_db()
    assert user.last_login > first


def test_the_database_holds_no_token(client: APIClient, user: User) -> None:
    log_in(client, "bob")
    assert list(OutstandingToken.objects.values_list("token", flat=True)) == [""]


def test_the_console_s_token_lasts_a_day(user: User) -> None:
    token = AccessToken(services.console_token(user))
    left = token["exp"] - timezone.now().timestamp()
    assert timedelta(hours=23.9).total_seconds() < left <= timedelta(hours=24).total_seconds()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool, monkeypatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 1)
    attempts.count("x", one)
    if same:
        with pytest.raises(attempts.TooManyAttempts):
            attempts.count("x", other)
    else:
        attempts.count("x", other)
