"""Who is calling the inference path: tokens, sessions, and how soon a change is seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import Client
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.tokens import AccessToken

from accounts import callers, quota, remembered, services
from accounts.callers import Caller, CsrfRefused, NotAuthenticated
from accounts.models import User
from accounts.tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def reads(monkeypatch: pytest.MonkeyPatch):
    """The user ids that were asked from the database meanwhile."""
    asked: list[int] = []
    read = callers._read_user

    def noting(user_id: int):
        asked.append(user_id)
        return read(user_id)

    monkeypatch.setattr(callers, "_read_user", noting)
    yield asked


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let seconds pass."""
    passed = [0.0]
    real = time.monotonic
    monkeypatch.setattr(callers.time, "monotonic", lambda: real() + passed[0])
    return lambda seconds: passed.__setitem__(0, passed[0] + seconds)


async def test_a_token_is_its_user_and_wallet(user: User) -> None:
    token = await sync_to_async(services.console_token)(user)
    caller = await callers.caller_from_bearer(token)
    assert caller == Caller(user.pk, "bob", "user", user.wallet.pk, False, "")
    assert caller == await sync_to_async(callers.caller_of)(user)


async def test_while_remembered_no_query_is_made(user: User, monkeypatch, later) -> None:
    token = await sync_to_async(services.console_token)(user)
    with reads(monkeypatch) as asked:
        for _ in range(50):
            await callers.caller_from_bearer(token)
        assert asked == [user.pk]
        later(callers.STATE_SECONDS + 0.1)
        await callers.caller_from_bearer(token)
        assert asked == [user.pk] * 2


async def test_while_remembered_no_signature_is_checked(user: User) -> None:
    token = await sync_to_async(services.console_token)(user)
    with patch.object(TokenBackend, "decode", autospec=True, side_effect=TokenBackend.decode) as decode:
        for _ in range(50):
            await callers.caller_from_bearer(token)
        assert decode.call_count == 1


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": "!"}], ids=["disabled account", "new password"])
async def test_a_token_ends_within_seconds_of_a_change_made_elsewhere(user: User, change: dict, later) -> None:
    token = await sync_to_async(services.console_token)(user)
    await callers.caller_from_bearer(token)
    await User.objects.aupdate(**change)
    later(callers.STATE_SECONDS + 0.1)
    with pytest.raises(NotAuthenticated):
        await callers.caller_from_bearer(token)


async def test_a_change_in_this_process_is_seen_at_once(user: User) -> None:
    token = await sync_to_async(services.console_token)(user)
    await callers.caller_from_bearer(token)
    await sync_to_async(services.set_password)(user, "another-Pass-9")
    with pytest.raises(NotAuthenticated):
        await callers.caller_from_bearer(token)


async def test_a_new_token_works_at_once_whatever_is_remembered(user: User) -> None:
    """The password was changed in another process: this one remembers the old state, and must not refuse the new token."""
    old = await sync_to_async(services.console_token)(user)
    await callers.caller_from_bearer(old)
    user.set_password("another-Pass-9")
    await user.asave()
    new = await sync_to_async(services.console_token)(user)
    assert (await callers.caller_from_bearer(new)).user_id == user.pk
    with pytest.raises(NotAuthenticated):
        await callers.caller_from_bearer(old)


@pytest.mark.parametrize(
    "kind", ["", "x", "a.b.c", "é.é.é", "\x00", "'\"", "x" * 65536, "refresh", "ghost", "no fingerprint"]
)
async def test_whatever_is_no_access_token_is_refused(user: User, kind: str, monkeypatch) -> None:
    token = kind
    if kind == "refresh":
        token = (await sync_to_async(services.token_pair)(user)).refresh
    elif kind == "ghost":
        token = str(AccessToken.for_user(User(pk=10**6, password="x")))
    elif kind == "no fingerprint":
        bare = AccessToken.for_user(user)
        del bare["hash_password"]
        token = str(bare)
    with reads(monkeypatch) as asked, pytest.raises(NotAuthenticated):
        await callers.caller_from_bearer(token)
    assert len(asked) == (kind == "ghost")


async def test_a_role_and_an_unlimited_wallet_are_seen(admin: User) -> None:
    await sync_to_async(quota.set_unlimited)(admin.wallet, True)
    caller = await callers.caller_from_bearer(await sync_to_async(services.console_token)(admin))
    assert (caller.role, caller.unlimited) == ("admin", True)


def test_what_is_remembered_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(remembered, "STATES_KEPT", 3)
    states: remembered.Remembered[int, str] = remembered.Remembered(60)
    for number in range(10):
        states.put(number, "known", time.monotonic())
    assert [number for number in range(10) if states.get(number)] == [7, 8, 9]


async def test_the_database_is_asked_in_threads_of_our_own(user: User, monkeypatch) -> None:
    names: list[str] = []
    read = callers._read_user
    monkeypatch.setattr(
        callers, "_read_user", lambda user_id: names.append(threading.current_thread().name) or read(user_id)
    )
    await callers.caller_from_bearer(await sync_to_async(services.console_token)(user))
    assert names[0].startswith("callers")


class TestSession:
    @pytest.fixture
    def browser(self, user: User) -> Client:
        client = Client()
        assert client.login(username="bob", password=PASSWORD)
        client.cookies["csrftoken"] = "a" * 32
        return client

    @staticmethod
    def headers(browser: Client, **more: str) -> list[tuple[bytes, bytes]]:
        cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in browser.cookies.items())
        given = {"host": "localhost", "cookie": cookie, **{k.replace("_", "-"): v for k, v in more.items()}}
        return [(name.encode(), value.encode()) for name, value in given.items()]

    async def test_reading_needs_the_cookie_only(self, browser: Client, user: User) -> None:
        caller = await callers.caller_from_session(self.headers(browser), "GET")
        assert caller
        assert caller.user_id == user.pk

    async def test_writing_needs_the_csrf_token(self, browser: Client) -> None:
        with pytest.raises(CsrfRefused):
            await callers.caller_from_session(self.headers(browser), "POST")
        with pytest.raises(CsrfRefused):
            await callers.caller_from_session(self.headers(browser, x_csrftoken="b" * 32), "POST")
        assert await callers.caller_from_session(self.headers(browser, x_csrftoken="a" * 32), "POST")

    async def test_a_foreign_origin_is_refused_even_with_the_token(self, browser: Client) -> None:
        token = {"x_csrftoken": "a" * 32}
        with pytest.raises(CsrfRefused):
            await callers.caller_from_session(self.headers(browser, origin="http://evil.example", **token), "POST")
        own = self.headers(browser, origin="http://localhost", **token)
        assert await callers.caller_from_session(own, "POST")
        by_tls = self.headers(browser, origin="https://localhost", **token)
        assert await callers.caller_from_session(by_tls, "POST", secure=True)
        with pytest.raises(CsrfRefused):
            await callers.caller_from_session(by_tls, "POST", secure=False)

    @pytest.mark.parametrize(
        "cookie", ["", "sessionid=", "sessionid=x", "sessionid=é\x00", "sessionid=" + "x" * 5000, ";;=;"]
    )
    async def test_no_session_no_caller(self, cookie: str, db: None) -> None:
        headers = [(b"host", b"localhost"), (b"cookie", cookie.encode())]
        assert await callers.caller_from_session(headers, "GET") is None
        assert await callers.caller_from_session([], "POST") is None

    async def test_it_ends_with_a_new_password(self, browser: Client, user: User) -> None:
        headers = self.headers(browser)
        assert await callers.caller_from_session(headers, "GET")
        await sync_to_async(services.set_password)(user, "another-Pass-9")
        assert await callers.caller_from_session(headers, "GET") is None

    async def test_it_ends_with_a_disabled_account(self, browser: Client, user: User, later) -> None:
        headers = self.headers(browser)
        assert await callers.caller_from_session(headers, "GET")
        await User.objects.aupdate(is_active=False)
        later(callers.STATE_SECONDS + 0.1)
        assert await callers.caller_from_session(headers, "GET") is None

    async def test_logging_out_is_seen_at_once(self, browser: Client) -> None:
        headers = self.headers(browser)
        assert await callers.caller_from_session(headers, "GET")
        await sync_to_async(browser.logout)()
        assert await callers.caller_from_session(headers, "GET") is None


@pytest.fixture(autouse=True)
def _close_thread_connections():
    yield
    callers._database_threads.submit(connections.close_all).result()
