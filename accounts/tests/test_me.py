from __future__ import annotations

from datetime import timedelta

import pytest
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from accounts import attempts, services
from accounts.models import User
from accounts.tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
URL = "/api/v1/auth/me"


def expired(user: User) -> str:
    token = AccessToken.for_user(user)
    token.set_exp(lifetime=-timedelta(seconds=1))
    return str(token)


@pytest.mark.parametrize(
    "kind", ["none", "rubbish", "expired", "refresh", "none-alg", "of a ghost", "long", "binary", "two"]
)
def test_a_bad_credential_is_always_the_same_401(client: APIClient, user: User, kind: str) -> None:
    ghost = User(pk=10**6, password="x")
    header = {
        "none": "",
        "rubbish": "Bearer rubbish",
        "expired": f"Bearer {expired(user)}",
        "refresh": f"Bearer {services.token_pair(user).refresh}",
        "none-alg": "Bearer eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoiMSIsInRva2VuX3R5cGUiOiJhY2Nlc3MifQ.",
        "of a ghost": f"Bearer {AccessToken.for_user(ghost)}",
        "long": f"Bearer {'x' * 65536}",
        "binary": "Bearer \xff\xfe'\"\x00",
        "two": f"Bearer {AccessToken.for_user(user)} more",
    }[kind]
    answer = client.get(URL, HTTP_AUTHORIZATION=header)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer["WWW-Authenticate"] == 'Bearer realm="api"'


def test_a_disabled_account_is_out_at_once(as_user, user: User) -> None:
    client = as_user(user)
    assert client.get(URL).status_code == 200
    User.objects.update(is_active=False)
    assert client.get(URL).status_code == 401


def test_changing_the_profile(as_user, user: User) -> None:
    client = as_user(user)
    change = {"language": "zh-hans", "first_name": "Bob", "last_name": "鲍勃", "email": "new@example.com"}
    answer = client.patch(URL, change, format="json")
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in change} == change
    assert client.patch(URL, {"email": ""}, format="json").json()["email"] == ""
    assert client.patch(URL, {}, format="json").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"username": "x"},
        {"role": "admin"},
        {"is_staff": True},
        {"balance": {"available": 1}},
        {"language": "xx"},
        {"email": "OLGA@example.com"},
        {"email": "olga"},
        {"first_name": "x" * 151},
        {"first_name": "a\x00b"},
    ],
)
def test_what_cannot_be_changed(as_user, user: User, make_user, change: dict) -> None:
    make_user("olga", email="olga@example.com")
    answer = as_user(user).patch(URL, change, format="json")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    user.refresh_from_db()
    assert (user.username, user.email, user.role) == ("bob", "bob@example.com", "user")


def test_messages_come_in_the_language_of_the_request_else_of_the_user(as_user, user: User) -> None:
    client = as_user(user)
    client.patch(URL, {"language": "zh-hans"}, format="json")
    assert client.get(URL)["Content-Language"] == "zh-hans"
    assert client.get(URL, HTTP_ACCEPT_LANGUAGE="en")["Content-Language"] == "en"
    client.credentials()
    assert client.get(URL)["Content-Language"] == "en", "it does not stick to the next request"


class TestBrowser:
    """The session cookie opens the same endpoints; what changes something also needs the CSRF token."""

    @pytest.fixture
    def browser(self, client: APIClient, user: User) -> APIClient:
        assert client.login(username="bob", password=PASSWORD)
        return client

    def test_reading(self, browser: APIClient) -> None:
        assert browser.get(URL).json()["username"] == "bob"

    def test_changing_without_the_token_is_refused(self, browser: APIClient) -> None:
        answer = browser.patch(URL, {"first_name": "x"}, format="json")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")

    def test_changing_with_it_works(self, browser: APIClient) -> None:
        browser.cookies["csrftoken"] = "a" * 32
        answer = browser.patch(URL, {"first_name": "x"}, format="json", HTTP_X_CSRFTOKEN="a" * 32)
        assert answer.status_code == 200
        foreign = browser.patch(
            URL, {"first_name": "y"}, format="json", HTTP_X_CSRFTOKEN="a" * 32, HTTP_ORIGIN="http://evil.example"
        )
        assert foreign.status_code == 403


class TestPassword:
    URL = "/api/v1/auth/password"
    NEW = "another-Pass-9"

    def test_it_ends_every_other_token_and_gives_a_new_pair(self, as_user, user: User) -> None:
        other = services.token_pair(user)
        client = as_user(user)
        answer = client.post(self.URL, {"old_password": PASSWORD, "new_password": self.NEW}, format="json")
        assert answer.status_code == 200
        assert client.get(URL).status_code == 401
        for token, status in ((other.access, 401), (answer.json()["access"], 200)):
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
            assert client.get(URL).status_code == status
        user.refresh_from_db()
        assert user.check_password(self.NEW)

    def test_it_lifts_the_duty_to_change(self, as_user, make_user) -> None:
        user = make_user(must_change_password=True)
        as_user(user).post(self.URL, {"old_password": PASSWORD, "new_password": self.NEW}, format="json")
        user.refresh_from_db()
        assert user.must_change_password is False

    @pytest.mark.parametrize(
        ("old", "new", "field"),
        [
            ("wrong", NEW, "old_password"),
            (PASSWORD, PASSWORD, "new_password"),
            (PASSWORD, "123", "new_password"),
            (PASSWORD, "", "new_password"),
        ],
    )
    def test_refusals(self, as_user, user: User, old: str, new: str, field: str) -> None:
        answer = as_user(user).post(self.URL, {"old_password": old, "new_password": new}, format="json")
        assert answer.status_code == 400
        assert list(answer.json()["error"]["details"]) == [field]
        user.refresh_from_db()
        assert user.check_password(PASSWORD)

    def test_a_stolen_token_is_no_way_to_guess_the_password(self, as_user, user: User, monkeypatch) -> None:
        monkeypatch.setattr(attempts, "PER_WINDOW", 2)
        client = as_user(user)
        given = {"old_password": "wrong", "new_password": self.NEW}
        codes = [client.post(self.URL, given, format="json").status_code for _ in range(3)]
        assert codes == [400, 400, 429]

    def test_a_browser_stays_logged_in_and_others_do_not(self, client: APIClient, user: User) -> None:
        elsewhere = APIClient()
        for browser in (client, elsewhere):
            assert browser.login(username="bob", password=PASSWORD)
        client.cookies["csrftoken"] = "a" * 32
        given = {"old_password": PASSWORD, "new_password": self.NEW}
        assert client.post(self.URL, given, format="json", HTTP_X_CSRFTOKEN="a" * 32).status_code == 200
        assert client.get(URL).status_code == 200
        assert elsewhere.get(URL).status_code == 401
