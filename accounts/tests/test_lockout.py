"""Guessing passwords: who waits, who does not, and what the answers tell about names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth import authenticate
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core.cache import cache
from django.db import connection
from django.db.models import F
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts import attempts, lockout, services
from accounts.models import User
from accounts.tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
URL = "/api/v1/auth/login"
MOST = 10
WRONG = [401] * MOST
ELSEWHERE = "198.51.100.9"


@pytest.fixture(autouse=True)
def _only_the_second_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 10_000)


def log_in(client: APIClient, name: str, password: str = PASSWORD, address: str = "203.0.113.7"):
    return client.post(URL, {"username": name, "password": password}, format="json", REMOTE_ADDR=address)


def guess(client: APIClient, name: str, times: int, address: str = "203.0.113.7") -> list[int]:
    return [log_in(client, name, f"wrong-{number}", address).status_code for number in range(times)]


def let_pass(minutes: int) -> None:
    AccessAttempt.objects.update(attempt_time=F("attempt_time") - timedelta(minutes=minutes))


@contextmanager
def hashes(monkeypatch: pytest.MonkeyPatch):
    """One entry for each password that is hashed meanwhile."""
    made: list[str] = []
    encode = MD5PasswordHasher.encode
    with monkeypatch.context() as patch:
        patch.setattr(MD5PasswordHasher, "encode", lambda *args: made.append("x") or encode(*args))
        yield made


# -- who waits -----------------------------------------------------------------------------------------------------------
def test_after_ten_wrong_passwords_the_right_one_waits_too(client: APIClient, user: User) -> None:
    assert guess(client, "bob", MOST) == WRONG
    refused = log_in(client, "bob")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.json()["error"]["message"] == "Too many attempts. Try again in 15 minutes."
    assert 800 < int(refused["Retry-After"]) <= 900


def test_nobody_is_locked_out_from_another_address(client: APIClient, user: User) -> None:
    guess(client, "bob", MOST + 1)
    assert log_in(client, "bob", address=ELSEWHERE).status_code == 200


def test_other_accounts_at_this_address_are_free(client: APIClient, user: User, make_user: Callable[..., User]) -> None:
    make_user("carol")
    guess(client, "bob", MOST + 1)
    assert log_in(client, "carol").status_code == 200


def test_it_ends_after_a_quarter_of_an_hour_and_then_counts_anew(client: APIClient, user: User) -> None:
    guess(client, "bob", MOST)
    let_pass(minutes=14)
    assert log_in(client, "bob").status_code == 429
    let_pass(minutes=2)
    assert guess(client, "bob", MOST + 1) == [*WRONG, 429]
    let_pass(minutes=16)
    assert log_in(client, "bob").status_code == 200


def test_waiting_does_not_begin_anew_with_each_try(client: APIClient, user: User) -> None:
    guess(client, "bob", MOST)
    let_pass(minutes=10)
    guess(client, "bob", 5)
    let_pass(minutes=6)
    assert log_in(client, "bob").status_code == 200


def test_a_right_password_forgets_the_wrong_ones(client: APIClient, user: User) -> None:
    for _ in range(3):
        assert guess(client, "bob", MOST - 1) == WRONG[1:]
        assert log_in(client, "bob").status_code == 200
    assert not AccessAttempt.objects.exists()


def test_a_new_password_opens_the_door_at_once(client: APIClient, user: User) -> None:
    guess(client, "bob", MOST)
    services.set_password(user, "another-Pass-9")
    assert log_in(client, "bob", "another-Pass-9").status_code == 200


def test_a_restart_forgets_nothing(client: APIClient, user: User) -> None:
    guess(client, "bob", MOST)
    cache.clear()
    assert log_in(client, "bob").status_code == 429


def test_one_ipv6_customer_is_one_address(client: APIClient, user: User) -> None:
    answers = [log_in(client, "bob", "wrong", f"2001:db8::{number}").status_code for number in range(MOST + 1)]
    assert answers == [*WRONG, 429]
    assert log_in(client, "bob", address="2001:db8:0:1::1").status_code == 200


def test_ipv4_written_as_ipv6_is_the_same_address(client: APIClient, user: User) -> None:
    guess(client, "bob", MOST, "::ffff:203.0.113.7")
    assert log_in(client, "bob").status_code == 429


@pytest.mark.parametrize("address", ["unknown", "/run/web.sock", "fe80::1%eth0"])
def test_a_connection_without_a_proper_address_is_counted_too(client: APIClient, user: User, address: str) -> None:
    assert guess(client, "bob", MOST + 1, address) == [*WRONG, 429]


def test_who_is_held_does_not_use_up_the_address(client: APIClient, user: User, make_user, monkeypatch) -> None:
    make_user("carol")
    monkeypatch.setattr(attempts, "PER_WINDOW", MOST + 1)
    assert guess(client, "bob", MOST * 3) == [*WRONG, *[429] * MOST * 2]
    assert log_in(client, "carol").status_code == 200


# -- what the answers tell -------------------------------------------------------------------------------------------------
def test_a_name_of_nobody_is_held_alike(client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, list[Any]] = {"bob": [], "nobody": []}
    for name, answers in told.items():
        for _ in range(MOST + 2):
            with (
                hashes(monkeypatch) as made,
                CaptureQueriesContext(
                    connection,
                ) as queries,
            ):
                answer = log_in(client, name, "wrong")
            headers = {key: value for key, value in answer.items() if key != "Retry-After"}
            answers.append((answer.status_code, answer.content, headers, len(made), len(queries)))
    assert told["bob"] == told["nobody"]
    assert [status for status, *_rest in told["bob"]] == [*WRONG, 429, 429]
    assert [made for *_rest, made, _queries in told["bob"]] == [1] * MOST + [0, 0]


def test_a_name_and_an_address_of_one_account_count_together(client: APIClient, user: User) -> None:
    assert guess(client, "bob", MOST // 2) == WRONG[:5]
    assert guess(client, "bob@example.com", MOST // 2) == WRONG[:5]
    assert log_in(client, "bob").status_code == 401
    assert log_in(client, "Bob@Example.com").status_code == 401
    let_pass(minutes=16)
    assert log_in(client, "bob").status_code == 200


def test_which_names_belong_together_is_not_told(client: APIClient, user: User, monkeypatch) -> None:
    guess(client, "bob", MOST)
    told = []
    for name in ("bob@example.com", "stranger@example.com"):
        for password in ("wrong", PASSWORD):
            with hashes(monkeypatch) as made:
                answer = log_in(client, name, password)
            told.append((answer.status_code, answer.content, len(made)))
    assert len(set(told)) == 1
    assert told[0][0] == 401


@pytest.mark.parametrize("names", [("bob", "BOB", "Bob"), ("bob@example.com", "BOB@Example.com"), ("Nobody", "nobody")])
def test_case_makes_no_other_name(client: APIClient, user: User, names: tuple[str, ...]) -> None:
    answers = [guess(client, names[number % len(names)], 1)[0] for number in range(MOST + 1)]
    assert answers == [*WRONG, 429]


def test_what_was_typed_as_a_name_is_not_stored(
    client: APIClient, user: User, caplog: pytest.LogCaptureFixture
) -> None:
    guess(client, "my-Secret-password", MOST + 1)
    rows = [str(value) for row in AccessAttempt.objects.values_list() for value in row]
    assert rows
    assert not any("ecret" in value for value in [*rows, caplog.text])


@pytest.mark.parametrize("name", ["bob\x00", "\x00", "x" * 254, "bob%", "б" * 100, "bob\u202e", "' OR 1=1 --", "😀"])
def test_strange_names_are_only_wrong(client: APIClient, user: User, name: str) -> None:
    assert set(guess(client, name, 2)) <= {400, 401}
    assert Client().post("/login", {"username": name, "password": "x"}).status_code == 200


@pytest.mark.parametrize("size", [2_000, 1_000_000, 11_000_000])
def test_a_long_password_is_not_hashed(client: APIClient, user: User, size: int, monkeypatch) -> None:
    with hashes(monkeypatch) as made:
        answer = log_in(client, "bob", "x" * size)
    assert answer.status_code == (400 if size < 10_000 else 413)
    assert made == []


# -- every door --------------------------------------------------------------------------------------------------------------
def test_the_login_page(user: User) -> None:
    browser = Client()
    answers = [browser.post("/login", {"username": "bob", "password": "wrong"}) for _ in range(MOST)]
    assert [answer.status_code for answer in answers] == [200] * MOST
    refused = browser.post("/login", {"username": "bob", "password": PASSWORD})
    assert refused.status_code == 429
    assert "Too many attempts. Try again in 15 minutes." in refused.content.decode()
    assert 800 < int(refused["Retry-After"]) <= 900


def test_the_console_s_login_is_the_same_page(user: User) -> None:
    browser = Client()
    asked = browser.get("/admin/", follow=True)
    assert asked.redirect_chain[-1][0].startswith("/login?")
    assert browser.post("/admin/login/", {"username": "bob", "password": PASSWORD}).status_code in {302, 405}
    assert "sessionid" not in browser.cookies


def test_all_doors_count_together(client: APIClient, user: User) -> None:
    browser = Client(REMOTE_ADDR="203.0.113.7")
    for _ in range(5):
        browser.post("/login", {"username": "bob", "password": "wrong"})
        guess(client, "bob", 1)
    assert log_in(client, "bob").status_code == 429
    request = RequestFactory().post("/login", REMOTE_ADDR="203.0.113.7")
    assert authenticate(request, username="bob", password=PASSWORD) is None


def test_django_s_own_way_counts_once(client: APIClient, user: User) -> None:
    request = RequestFactory().post("/login", REMOTE_ADDR="203.0.113.7")
    for _ in range(MOST):
        assert authenticate(request, username="bob", password="wrong") is None
    assert set(AccessAttempt.objects.values_list("failures_since_start", flat=True)) == {MOST}


def test_the_old_password_cannot_be_guessed_with_a_stolen_token(as_user, user: User) -> None:
    client = as_user(user)
    body = {"old_password": "wrong", "new_password": "another-Pass-9"}
    answers = [client.post("/api/v1/auth/password", body, format="json").status_code for _ in range(MOST + 1)]
    assert answers == [*[400] * MOST, 429]
    right = client.post("/api/v1/auth/password", {**body, "old_password": PASSWORD}, format="json")
    assert right.status_code == 429
    assert "Retry-After" in right
    assert user.check_password(PASSWORD)


def test_nor_on_the_page(user: User) -> None:
    browser = Client()
    browser.force_login(user)
    body = {"old_password": "wrong", "new_password": "another-Pass-9"}
    answers = [browser.post("/password", body).status_code for _ in range(MOST)]
    assert answers == [200] * MOST
    refused = browser.post("/password", {**body, "old_password": PASSWORD})
    assert refused.status_code == 429
    assert "Too many attempts" in refused.content.decode()


def test_whoever_is_logged_in_is_told_of_guesses_by_the_other_name(client: APIClient, as_user, user: User) -> None:
    """They know already whose account it is; that their right password were wrong would be a lie."""
    guess(client, "bob@example.com", MOST, "127.0.0.1")
    body = {"old_password": PASSWORD, "new_password": "another-Pass-9"}
    assert as_user(user).post("/api/v1/auth/password", body, format="json").status_code == 429


# -- the table ---------------------------------------------------------------------------------------------------------------
def test_a_name_takes_two_rows_however_often_it_is_tried(client: APIClient, user: User) -> None:
    for agent in range(MOST):
        client.post(URL, {"username": "bob", "password": "x"}, format="json", HTTP_USER_AGENT=f"agent {agent}" * 100)
    assert AccessAttempt.objects.count() == 2
    assert max(len(str(row)) for row in AccessAttempt.objects.values_list()) < 1000


def test_cleaning_up_takes_what_is_over(client: APIClient, user: User) -> None:
    guess(client, "old", 1)
    let_pass(minutes=16)
    guess(client, "bob", 1)
    lockout.clean_up()
    assert AccessAttempt.objects.count() == 2
    assert guess(client, "bob", MOST) == [*WRONG[1:], 429]


def test_cleaning_up_keeps_the_table_small(client: APIClient, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockout, "MOST_COUNTERS", 6)
    monkeypatch.setattr(lockout, "DELETED_AT_ONCE", 2)
    for number in range(8):
        guess(client, f"name{number}", 1)
    newest = set(AccessAttempt.objects.order_by("-pk").values_list("pk", flat=True)[:6])
    lockout.clean_up()
    assert set(AccessAttempt.objects.values_list("pk", flat=True)) == newest
