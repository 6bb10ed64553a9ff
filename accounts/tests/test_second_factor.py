"""Codes of an app as the second step of a login: on pages, by REST, and when one must have it."""

from __future__ import annotations

import html
import itertools
import re
import time
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pyotp
import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import Client
from rest_framework.test import APIClient

from accounts import attempts, callers, keys, people, second_factor, services
from accounts.models import AuditEntry, RecoveryCode, SecondFactor, User
from accounts.tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(second_factor, "clock", made)
    return made


class App:
    """The one on the phone."""

    def __init__(self, secret: str, clock: Clock) -> None:
        self.totp, self.clock = pyotp.TOTP(secret), clock

    def code(self, after: float = 0) -> str:
        return self.totp.at(int(self.clock.now + after))

    def next(self) -> str:
        """One that was not used yet."""
        self.clock.now += 30
        return self.code()

    def wrong(self) -> str:
        good = {self.code(after) for after in (-30, 0, 30)}
        return next(code for code in ("000000", "111111", "222222", "333333") if code not in good)


def turned_on(user: User, clock: Clock) -> tuple[App, list[str]]:
    setup = second_factor.begin_setup(user)
    app = App(setup.secret, clock)
    return app, second_factor.confirm_setup(user, setup.kept, PASSWORD, app.code())


@pytest.fixture
def app(user: User, clock: Clock) -> App:
    made, _codes = turned_on(user, clock)
    clock.now += 30
    return made


@pytest.fixture
def browser() -> Client:
    return Client()


def log_in(browser: Client, name: str = "bob", **more: str) -> HttpResponse:
    return browser.post("/login", {"username": name, "password": PASSWORD, **more})


def rest(name: str = "bob", **more: str) -> HttpResponse:
    return APIClient().post("/api/v1/auth/login", {"username": name, "password": PASSWORD, **more}, format="json")


def code_of(answer: HttpResponse) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def is_in(browser: Client) -> bool:
    return "_auth_user_id" in browser.session


# -- setting it up -------------------------------------------------------------------------------------------------------


def test_setting_up_on_the_page(browser: Client, user: User, clock: Clock) -> None:
    browser.force_login(user)
    assert "setup=1" in browser.get("/account/security").content.decode()
    page = browser.get("/account/security?setup=1").content.decode()
    assert 'src="data:image/svg+xml' in page
    secret = re.search(r'class="key">([A-Z2-7 ]+)<', page)[1].replace(" ", "")
    assert browser.get("/account/security?setup=1").content.decode().count(secret[:4]), "the same after a reload"
    app = App(secret, clock)
    wrong = browser.post("/account/security/on", {"code": app.wrong(), "password": PASSWORD})
    assert wrong.status_code == 400
    assert secret[:4] in wrong.content.decode(), "with the same secret again"
    assert browser.post("/account/security/on", {"code": app.code(), "password": "no"}).status_code == 400
    assert not SecondFactor.objects.exists()
    done = browser.post("/account/security/on", {"code": app.code(), "password": PASSWORD})
    assert "no-store" in done["Cache-Control"]
    codes = re.findall(r"\b[a-z2-9]{4}(?:-[a-z2-9]{4}){3}\b", html.unescape(done.content.decode()))
    assert len(set(codes)) == 10
    assert codes[0] not in browser.get("/account/security").content.decode(), "shown once"
    assert rest(otp=codes[0]).status_code == 200


def test_nothing_in_the_database_makes_codes(user: User, clock: Clock) -> None:
    app, codes = turned_on(user, clock)
    stored = str(list(SecondFactor.objects.values())) + str(list(RecoveryCode.objects.values()))
    stored += str(list(AuditEntry.objects.values()))
    assert app.totp.secret not in stored
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)
    entry = AuditEntry.objects.get(action="user.second_factor_on")
    assert entry.changes == {"second_factor": [None, True], "totp_secret": "changed"}


def test_a_secret_of_another_session_turns_nothing_on(browser: Client, user: User, clock: Clock) -> None:
    """Somebody else's page must not decide which secret it is."""
    browser.force_login(user)
    setup = second_factor.begin_setup(user)
    fields = {"code": App(setup.secret, clock).code(), "password": PASSWORD, "kept": setup.kept, "secret": setup.secret}
    assert browser.post("/account/security/on", fields).status_code == 400
    assert not SecondFactor.objects.exists()


def test_it_is_set_up_once(user: User, app: App, clock: Clock) -> None:
    other = second_factor.begin_setup(user)
    with pytest.raises(second_factor.AlreadyOn):
        second_factor.confirm_setup(user, other.kept, PASSWORD, App(other.secret, clock).code())
    second_factor.check(user, app.next())


def test_turned_off_it_is_not_offered(browser: Client, user: User, app: App, settings: Any) -> None:
    settings.SECOND_FACTOR = "off"
    log_in(browser)
    assert is_in(browser)
    assert rest().status_code == 200
    assert "factor-title" not in browser.get("/account/security").content.decode()


# -- logging in on the page ----------------------------------------------------------------------------------------------


def test_the_password_alone_does_not_let_in(browser: Client, app: App) -> None:
    answer = log_in(browser, next="/account/usage")
    assert answer["Location"] == "/login/code"
    assert not is_in(browser)
    assert browser.get("/account")["Location"].startswith("/login")
    assert browser.get("/api/v1/auth/me").status_code == 401
    assert browser.post("/login/code", {"code": app.wrong()}).status_code == 400
    assert not is_in(browser)
    answer = browser.post("/login/code", {"code": app.code()})
    assert answer["Location"] == "/account/usage"
    assert is_in(browser)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example"])
def test_it_leads_to_pages_of_this_service_only(browser: Client, app: App, target: str) -> None:
    log_in(browser, next=target)
    assert browser.post("/login/code", {"code": app.code()})["Location"] == "/"


def test_the_second_step_alone_is_nothing(browser: Client, app: App) -> None:
    assert browser.get("/login/code")["Location"] == "/login"
    assert browser.post("/login/code", {"code": app.code()})["Location"] == "/login"
    assert not is_in(browser)


@pytest.mark.parametrize("change", ["blocked", "password", "late"])
def test_the_first_step_does_not_last(
    browser: Client, user: User, app: App, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(browser)
    if change == "blocked":
        people.block_user(user)
    elif change == "password":
        services.set_password(user, "staple wagon nineteen")
    else:
        now = time.time()
        monkeypatch.setattr("accounts.login_steps.time.time", lambda: now + 301)
    assert browser.post("/login/code", {"code": app.code()})["Location"] == "/login"
    assert not is_in(browser)


def test_a_session_from_before_is_not_taken_over(browser: Client, app: App) -> None:
    browser.get("/login")
    log_in(browser)
    before = browser.session.session_key
    browser.post("/login/code", {"code": app.code()})
    assert browser.session.session_key != before


def test_without_a_factor_one_step_is_enough(browser: Client, user: User) -> None:
    assert log_in(browser)["Location"] == "/"
    assert is_in(browser)


def test_a_recovery_code_works_once(browser: Client, user: User, clock: Clock) -> None:
    _app, codes = turned_on(user, clock)
    log_in(browser)
    assert "Recovery code" in browser.get("/login/code?recovery=1").content.decode()
    typed = f" {codes[3].upper().replace('-', ' ')} "
    assert browser.post("/login/code?recovery=1", {"code": typed}).status_code == 302
    assert is_in(browser)
    assert AuditEntry.objects.get(action="user.recovery_code_used").changes == {"recovery_codes_left": [None, 9]}
    assert code_of(rest(otp=codes[3])) == (401, "second_factor_invalid")
    assert rest(otp=codes[4]).status_code == 200


def test_codes_as_people_type_them(user: User, app: App) -> None:
    code = app.next()
    second_factor.check(user, f"{code[:3]} {code[3:]}")
    wide = app.next().translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})
    second_factor.check(user, wide)


def test_a_phone_s_clock_may_be_a_little_off(user: User, app: App, clock: Clock) -> None:
    second_factor.check(user, app.code(after=30))
    clock.now += 90
    for away in (-90, 90):
        with pytest.raises(second_factor.CodeRefused):
            second_factor.check(user, app.code(after=away))


# -- by REST -------------------------------------------------------------------------------------------------------------


def test_rest_says_what_is_missing(user: User, app: App) -> None:
    assert code_of(rest()) == (401, "second_factor_required")
    assert code_of(rest(otp="")) == (401, "second_factor_required")
    assert code_of(rest(otp=app.wrong())) == (401, "second_factor_invalid")
    answer = rest(otp=app.code())
    assert answer.status_code == 200
    assert APIClient().get("/api/v1/auth/me", HTTP_AUTHORIZATION=f"Bearer {answer.json()['access']}").status_code == 200


def test_rest_tells_of_the_factor_only_who_knows_the_password(user: User, app: App) -> None:
    answer = APIClient().post("/api/v1/auth/login", {"username": "bob", "password": "x", "otp": "1"}, format="json")
    assert code_of(answer) == (401, "invalid_api_key")


def test_an_otp_without_a_factor_does_no_harm(user: User) -> None:
    assert rest(otp="123456").status_code == 200


@pytest.mark.parametrize("otp", [123456, None, ["1"], {"a": 1}, "x" * 101, "\0" * 6, "😀", "١٢٣٤٥٦"])
def test_odd_codes_are_refused(user: User, app: App, otp: Any) -> None:
    answer = APIClient().post(
        "/api/v1/auth/login", {"username": "bob", "password": PASSWORD, "otp": otp}, format="json"
    )
    assert answer.status_code in {400, 401}


def test_api_keys_work_without_it(user: User, app: App, settings: Any) -> None:
    settings.SECOND_FACTOR = "everyone"
    _key, secret = keys.create_key(user, keys.NewKey(name="build", scopes=["usage:read"]))
    assert APIClient().get("/api/v1/auth/me", HTTP_AUTHORIZATION=f"Bearer {secret}").status_code == 200
    second_factor.remove(user)
    assert APIClient().get("/api/v1/auth/me", HTTP_AUTHORIZATION=f"Bearer {secret}").status_code == 200


# -- guessing ------------------------------------------------------------------------------------------------------------


def test_a_code_works_once(user: User, app: App) -> None:
    code = app.code()
    assert rest(otp=code).status_code == 200
    assert code_of(rest(otp=code)) == (401, "second_factor_invalid")
    older = app.code(after=-30)
    assert code_of(rest(otp=older)) == (401, "second_factor_invalid")


def test_the_code_of_the_setting_up_is_used_up(user: User, clock: Clock) -> None:
    app, _codes = turned_on(user, clock)
    assert code_of(rest(otp=app.code())) == (401, "second_factor_invalid")


def test_wrong_codes_make_the_account_wait_wherever_they_come_from(user: User, app: App) -> None:
    def tried(number: int, otp: str) -> HttpResponse:
        body = {"username": "bob", "password": PASSWORD, "otp": otp}
        return APIClient(REMOTE_ADDR=f"10.0.0.{number}").post("/api/v1/auth/login", body, format="json")

    assert [tried(number, app.wrong()).status_code for number in range(7)] == [401] * 5 + [429] * 2
    refused = tried(9, app.code())
    assert code_of(refused) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused["Retry-After"]) <= 30
    SecondFactor.objects.update(blocked_until=None)
    assert tried(10, app.code()).status_code == 200
    assert SecondFactor.objects.get().failures == 0


def test_each_further_wrong_code_makes_them_wait_longer(user: User, app: App) -> None:
    waits = []
    for _time in range(8):
        SecondFactor.objects.update(blocked_until=None)
        with pytest.raises(second_factor.CodeRefused):
            second_factor.check(user, app.wrong())
        with pytest.raises((attempts.TooManyAttempts, second_factor.CodeRefused)) as refusal:
            second_factor.check(user, app.wrong())
        waits.append(getattr(refusal.value, "retry_after", 0))
    assert [wait > 0 for wait in waits] == [False, False] + [True] * 6
    assert all(later > earlier for earlier, later in itertools.pairwise(waits[2:]))


def test_the_owner_gets_in_with_a_recovery_code_meanwhile(user: User, clock: Clock) -> None:
    app, codes = turned_on(user, clock)
    for _time in range(5):
        with pytest.raises(second_factor.CodeRefused):
            second_factor.check(user, app.wrong())
    with pytest.raises(attempts.TooManyAttempts):
        second_factor.check(user, app.next())
    second_factor.check(user, codes[0])


def test_one_address_has_so_many_attempts(browser: Client, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 2)
    log_in(browser)
    answers = [browser.post("/login/code", {"code": "abcd-efgh-jkmn-pqrs"}).status_code for _time in range(3)]
    assert answers == [400, 400, 429]


def test_wrong_codes_are_in_the_audit_log(user: User, app: App) -> None:
    rest(otp=app.wrong())
    entry = AuditEntry.objects.get(action="user.login_failed")
    assert entry.target_name == "bob"
    assert entry.changes["reason"] == [None, "second_factor"]


# -- looking after it ----------------------------------------------------------------------------------------------------


def test_new_recovery_codes_replace_the_old_ones(browser: Client, user: User, clock: Clock) -> None:
    app, old = turned_on(user, clock)
    browser.force_login(user)
    fields = {"codes-password": PASSWORD, "codes-code": app.next()}
    assert browser.post("/account/security/codes", {**fields, "codes-password": "no"}).status_code == 400
    made = browser.post("/account/security/codes", fields)
    assert made.status_code == 200
    assert AuditEntry.objects.filter(action="user.recovery_codes").exists()
    assert code_of(rest(otp=old[0])) == (401, "second_factor_invalid")
    assert rest(otp=made.context["codes"][0]).status_code == 200


@pytest.mark.parametrize(("password", "right_code"), [(PASSWORD, False), ("wrong", True), ("", True)])
def test_turning_it_off_takes_password_and_code(
    browser: Client, user: User, app: App, password: str, right_code: bool
) -> None:
    browser.force_login(user)
    code = app.code() if right_code else app.wrong()
    assert browser.post("/account/security/off", {"off-password": password, "off-code": code}).status_code == 400
    assert SecondFactor.objects.exists()


def test_turning_it_off(browser: Client, user: User, app: App) -> None:
    browser.force_login(user)
    answer = browser.post("/account/security/off", {"off-password": PASSWORD, "off-code": app.code()})
    assert answer["Location"] == "/account/security"
    assert not RecoveryCode.objects.exists()
    assert AuditEntry.objects.get(action="user.second_factor_off").actor == user
    assert rest().status_code == 200


def test_whoever_must_have_one_sets_up_another_at_once(browser: Client, user: User, app: App, settings: Any) -> None:
    settings.SECOND_FACTOR = "everyone"
    browser.force_login(user)
    assert "Move to another phone" in browser.get("/account/security").content.decode()
    browser.post("/account/security/off", {"off-password": PASSWORD, "off-code": app.code()})
    assert browser.get("/account")["Location"] == "/account/security"
    assert browser.get("/account/security").context["setup"].secret != app.totp.secret


def test_the_command_takes_it_away(user: User, app: App) -> None:
    out = StringIO()
    call_command("resetsecondfactor", "bob@example.com", stdout=out)
    assert "bob: the second factor is removed" in out.getvalue()
    assert AuditEntry.objects.get(action="user.second_factor_off").actor_name.startswith("command:")
    assert rest().status_code == 200
    call_command("resetsecondfactor", "bob", stdout=out)
    assert "bob has no second factor" in out.getvalue()
    with pytest.raises(CommandError):
        call_command("resetsecondfactor", "nobody")


def test_the_console_takes_it_away(browser: Client, admin: User, user: User, app: App) -> None:
    browser.force_login(admin)
    page = browser.get(f"/admin/accounts/user/{user.pk}/change/").content.decode()
    assert "reset_second_factor" in page
    assert "on since" in page
    browser.post(f"/admin/accounts/user/{user.pk}/reset_second_factor/", {"_form_submitted": "on"})
    assert not SecondFactor.objects.exists()
    assert AuditEntry.objects.get(action="user.second_factor_off").actor == admin
    assert "reset_second_factor" not in browser.get(f"/admin/accounts/user/{user.pk}/change/").content.decode()


def test_operators_cannot_take_it_away(browser: Client, operator: User, user: User, app: App) -> None:
    browser.force_login(operator)
    answer = browser.post(f"/admin/accounts/user/{user.pk}/reset_second_factor/", {"_form_submitted": "on"})
    assert answer.status_code in {302, 403, 404}
    assert SecondFactor.objects.exists()


def test_another_secret_key_asks_for_help_and_recovery_codes_are_kept(
    browser: Client, user: User, clock: Clock, settings: Any
) -> None:
    app, _codes = turned_on(user, clock)
    log_in(browser)
    session = browser.session
    pending = dict(session["pending_login"])
    settings.SECRET_KEY = "another one that is quite long enough"
    session["pending_login"] = {**pending, "hash": user.get_session_auth_hash()}
    session.save()
    answer = browser.post("/login/code", {"code": app.next()})
    assert answer.status_code == 400
    assert "ask the administrator" in answer.content.decode()


# -- whoever must have one -----------------------------------------------------------------------------------------------


@pytest.fixture
def required(settings: Any) -> Iterator[None]:
    settings.SECOND_FACTOR = "operators"
    return


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize("path", ["/", "/chat/", "/account", "/account/keys", "/admin/", "/account/security/connect"])
def test_pages_lead_to_setting_it_up(browser: Client, operator: User, path: str) -> None:
    assert log_in(browser, "olga").status_code == 302
    assert browser.get(path)["Location"] == "/account/security"
    page = browser.get("/account/security").content.decode()
    assert "before you go on" in page
    assert 'class="qr"' in page


@pytest.mark.usefixtures("required")
def test_rest_leads_to_setting_it_up(browser: Client, operator: User) -> None:
    before = services.token_pair(operator)
    assert code_of(rest("olga")) == (403, "second_factor_setup_required")
    as_olga = APIClient(HTTP_AUTHORIZATION=f"Bearer {before.access}")
    assert code_of(as_olga.get("/api/v1/auth/me")) == (403, "second_factor_setup_required"), "a token from before"
    renewed = APIClient().post("/api/v1/auth/refresh", {"refresh": before.refresh}, format="json")
    assert code_of(renewed) == (403, "second_factor_setup_required")
    log_in(browser, "olga")
    assert code_of(browser.get("/api/v1/auth/me")) == (403, "second_factor_setup_required"), "by the session"
    assert code_of(browser.get("/api/v1/cluster/nodes")) == (403, "second_factor_setup_required")


@pytest.mark.usefixtures("required")
def test_once_it_is_set_up_everything_goes_on(browser: Client, operator: User, clock: Clock) -> None:
    log_in(browser, "olga")
    secret = browser.get("/account/security").context["setup"].secret
    app = App(secret, clock)
    browser.post("/account/security/on", {"code": app.code(), "password": PASSWORD})
    assert browser.get("/account").status_code == 200
    assert browser.get("/api/v1/auth/me").status_code == 200
    assert rest("olga", otp=app.next()).status_code == 200


@pytest.mark.usefixtures("required")
@pytest.mark.django_db(transaction=True)
async def test_the_gateway_takes_no_session_before(operator: User, clock: Clock) -> None:
    browser = Client()
    await sync_to_async(log_in)(browser, "olga")
    cookie = f"sessionid={browser.cookies['sessionid'].value}".encode()
    assert await callers.caller_from_session([(b"cookie", cookie)], "GET") is None
    await sync_to_async(turned_on)(operator, clock)
    found = await callers.caller_from_session([(b"cookie", cookie)], "GET")
    assert found is not None
    assert found.username == "olga"


@pytest.mark.usefixtures("required")
def test_ordinary_people_may_do_without(browser: Client, user: User) -> None:
    log_in(browser)
    assert browser.get("/account").status_code == 200
    assert rest().status_code == 200


@pytest.mark.usefixtures("required")
def test_whoever_becomes_operator_must_set_one_up(browser: Client, user: User) -> None:
    log_in(browser)
    people.set_role(user, "operator")
    assert browser.get("/account")["Location"] == "/account/security"


def test_everyone(browser: Client, settings: Any) -> None:
    settings.SECOND_FACTOR = "everyone"
    answer = APIClient().post("/api/v1/auth/register", {"username": "cleo", "password": PASSWORD}, format="json")
    assert answer.status_code == 202
    assert "token" not in answer.json()
    log_in(browser, "cleo")
    assert browser.get("/chat/")["Location"] == "/account/security"


@pytest.mark.usefixtures("required")
def test_who_comes_by_a_provider_that_asks_itself_needs_none_here(
    browser: Client, make_user: Callable[..., User], settings: Any
) -> None:
    settings.OIDC_SECOND_FACTOR = True
    person = make_user("ada", is_staff=True)
    person.set_unusable_password()
    person.save()
    browser.force_login(person)
    assert browser.get("/account").status_code == 200
    services.set_password(person, "staple wagon nineteen")
    browser.force_login(person)
    assert browser.get("/account")["Location"] == "/account/security"
