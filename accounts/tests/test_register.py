from __future__ import annotations

import pytest
from django.db import IntegrityError
from rest_framework.test import APIClient

from accounts import attempts, services
from accounts.models import User

pytestmark = pytest.mark.django_db
URL = "/api/v1/auth/register"
GOOD = {"username": "carol", "password": "jh8&laks-d1", "email": "carol@example.com"}


def test_a_new_user_is_logged_in_and_has_its_first_credit(client: APIClient) -> None:
    answer = client.post(URL, GOOD, format="json")
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {"user", "token", "access", "refresh"}
    assert body["token"] == body["access"]
    assert body["user"] == {
        "id": body["user"]["id"],
        "username": "carol",
        "email": "carol@example.com",
        "first_name": "",
        "last_name": "",
        "role": "user",
        "language": "",
        "must_change_password": False,
        "balance": {"available": 1_000_000, "held": 0, "unlimited": False},
    }
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {body['token']}")
    assert client.get("/api/v1/auth/me").json() == body["user"]


def test_the_guide_s_curl_line_sends_json_as_a_form_and_works(client: APIClient) -> None:
    text = '{"username":"carol","password":"jh8&laks-d1"}'
    answer = client.post(URL, text, content_type="application/x-www-form-urlencoded", HTTP_ACCEPT_LANGUAGE="zh-hans")
    assert answer.status_code == 201
    assert answer.json()["user"]["language"] == "zh-hans"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"username": "BOB"}, "username"),
        ({"username": "bob@EXAMPLE.com"}, "username"),
        ({"email": "BOB@example.com"}, "email"),
        ({"username": "a b"}, "username"),
        ({"username": ""}, "username"),
        ({"username": "x" * 151}, "username"),
        ({"username": ["bob"]}, "username"),
        ({"password": "12345"}, "password"),
        ({"password": "carolcar"}, "password"),
        ({"email": "nowhere"}, "email"),
        ({"language": "klingon"}, "language"),
        ({"is_superuser": True}, "is_superuser"),
    ],
)
def test_what_is_wrong_is_told_per_field(client: APIClient, user: User, change: dict, field: str) -> None:
    answer = client.post(URL, {**GOOD, **change}, format="json")
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], list(error["details"])) == ("invalid_request", [field])
    assert User.objects.count() == 1


def test_all_wrong_fields_are_told_at_once(client: APIClient, user: User) -> None:
    answer = client.post(URL, {"username": "Bob", "password": "1", "email": "bob@example.com"}, format="json")
    assert set(answer.json()["error"]["details"]) == {"username", "password", "email"}


def test_two_at_once_with_one_name(client: APIClient, user: User, monkeypatch) -> None:
    """The check of the name found it free, and then somebody else was quicker."""
    monkeypatch.setattr(services, "_check_unique", lambda user: None)
    answer = client.post(URL, {**GOOD, "username": "BOB"}, format="json")
    assert answer.status_code == 400
    assert list(answer.json()["error"]["details"]) == ["username"]
    with pytest.raises(IntegrityError):
        User.objects.create(username="boB")


def test_with_approval_an_account_waits(client: APIClient, settings) -> None:
    settings.REGISTRATION = "approval"
    answer = client.post(URL, GOOD, format="json")
    assert answer.status_code == 202
    assert set(answer.json()) == {"user", "message"}
    answer = client.post("/api/v1/auth/login", {"username": "carol", "password": "jh8&laks-d1"}, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")


def test_closed_registration_says_so(client: APIClient, settings) -> None:
    settings.REGISTRATION = "closed"
    answer = client.post(URL, GOOD, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "registration_closed")
    assert not User.objects.exists()


def test_one_address_may_register_so_many_a_minute(client: APIClient, monkeypatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 2)
    names = [client.post(URL, {**GOOD, "username": f"c{n}", "email": ""}, format="json").status_code for n in range(2)]
    assert names == [201, 201]
    answer = client.post(URL, {**GOOD, "username": "c3", "email": ""}, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(answer["Retry-After"]) <= 60
    other = client.post(URL, {**GOOD, "username": "c4"}, format="json", REMOTE_ADDR="10.0.0.9")
    assert other.status_code == 201


class TestCreateAdministrator:
    def test_a_random_password_is_shown_once_and_must_be_changed(self) -> None:
        made = services.create_administrator("root")
        assert made.password
        assert made.must_change
        assert made.user.check_password(made.password)
        assert (made.user.role, made.user.wallet.unlimited, made.user.must_change_password) == ("admin", True, True)

    def test_a_good_password_of_one_s_own_stays(self) -> None:
        made = services.create_administrator("root", "jh8&laks-d1")
        assert (made.password, made.must_change) == (None, False)

    def test_a_weak_one_must_be_changed(self) -> None:
        assert services.create_administrator("root", "admin").must_change

    def test_a_name_that_is_taken(self, user: User) -> None:
        with pytest.raises(services.ValidationError):
            services.create_administrator("BOB")
