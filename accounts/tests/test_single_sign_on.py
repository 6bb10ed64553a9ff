"""Logging in at a provider that is a process of its own and speaks real HTTP (``tests.oidc_provider``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.http import HttpResponse
from django.test import Client

from accounts import attempts, openid_connect, people, provider_http
from accounts.models import AuditEntry, Group, SingleSignOnIdentity, User, Wallet
from accounts.tests.conftest import PASSWORD
from tests.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, running_provider

pytestmark = pytest.mark.django_db

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture(scope="module")
def process() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(process: Provider, settings: Any) -> Provider:
    process.behave()
    openid_connect.forget_description()
    settings.OIDC_ISSUER = process.issuer
    settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = CLIENT_ID, CLIENT_SECRET
    settings.OIDC_NAME = "Campus"
    settings.OIDC_REGISTRATION = "open"
    settings.ALLOWED_HOSTS = ["testserver"]
    return process


@pytest.fixture
def browser() -> Client:
    return Client(enforce_csrf_checks=True)


def go(browser: Client, provider: Provider, person: str = "ada", query: str = "") -> HttpResponse:
    """The whole way: to the provider and back."""
    sent = browser.get(f"/login/sso{query}")
    assert sent.status_code == 302, sent.content
    return browser.get(own_part(provider.log_in(sent["Location"], person)))


def own_part(address: str) -> str:
    parts = urlsplit(address)
    assert (parts.scheme, parts.netloc) == ("http", "testserver")
    return f"{parts.path}?{parts.query}"


def who(browser: Client) -> str:
    number = browser.session.get("_auth_user_id")
    return User.objects.get(pk=number).username if number else ""


def text(response: HttpResponse) -> str:
    return response.content.decode()


# -- as it should be -----------------------------------------------------------------------------------------------------


def test_somebody_new_gets_an_account_and_the_same_one_the_next_time(browser: Client, provider: Provider) -> None:
    answer = go(browser, provider)
    assert (answer.status_code, answer["Location"]) == (302, "/")
    user = User.objects.get(username="ada")
    assert who(browser) == "ada"
    assert not user.has_usable_password()
    assert Wallet.objects.get(user=user).available > 0
    again = Client()
    go(again, provider)
    assert who(again) == "ada"
    assert User.objects.filter(username__startswith="ada").count() == 1


def test_the_way_there_has_state_nonce_and_a_challenge(browser: Client, provider: Provider) -> None:
    query = parse_qs(urlsplit(browser.get("/login/sso")["Location"]).query)
    assert query["response_type"] == ["code"]
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == ["http://testserver/login/sso/back"]
    assert all(len(query[name][0]) >= 16 for name in ("state", "nonce", "code_challenge"))
    other = parse_qs(urlsplit(browser.get("/login/sso")["Location"]).query)
    assert all(query[name] != other[name] for name in ("state", "nonce", "code_challenge"))


def test_two_tabs_do_not_disturb_each_other(browser: Client, provider: Provider) -> None:
    first, second = (browser.get("/login/sso")["Location"] for _tab in range(2))
    assert browser.get(own_part(provider.log_in(first, "ada"))).status_code == 302
    assert browser.get(own_part(provider.log_in(second, "ada"))).status_code == 302
    assert who(browser) == "ada"


def test_the_address_people_type_is_where_they_come_back_to(browser: Client, provider: Provider, settings: Any) -> None:
    settings.PUBLIC_URL = "https://llm.example.org"
    query = parse_qs(urlsplit(browser.get("/login/sso")["Location"]).query)
    assert query["redirect_uri"] == ["https://llm.example.org/login/sso/back"]


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("/account/usage", "/account/usage"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_it_leads_to_pages_of_this_service_only(browser: Client, provider: Provider, wanted: str, target: str) -> None:
    sent = browser.get("/login/sso", {"next": wanted})
    answer = browser.get(own_part(provider.log_in(sent["Location"], "ada")))
    assert answer["Location"] == target


def test_claims_may_come_from_the_user_info(browser: Client, provider: Provider) -> None:
    names = ["preferred_username", "email", "email_verified"]
    provider.behave(claims={"email": "ada@campus.example", "email_verified": True}, in_user_info=names)
    go(browser, provider, "7f3c")
    user = SingleSignOnIdentity.objects.get(subject="7f3c").user
    assert (user.username, user.email) == ("7f3c", "ada@campus.example")


def test_without_settings_there_is_no_such_page(browser: Client, settings: Any) -> None:
    settings.OIDC_ISSUER = ""
    assert browser.get("/login/sso").status_code == 404
    assert browser.get("/login/sso/back").status_code == 404
    assert "/login/sso" not in text(browser.get("/login"))


def test_the_login_page_has_the_button(browser: Client, provider: Provider) -> None:
    page = text(browser.get("/login?next=/account"))
    assert "Log in with Campus" in page
    assert "/login/sso?next=/account" in page


# -- who they are here ---------------------------------------------------------------------------------------------------


def test_a_name_or_an_address_that_somebody_has_is_not_enough(
    browser: Client, provider: Provider, make_user: Callable[..., User]
) -> None:
    make_user("ada", email="ada@example.org", is_staff=True)
    provider.behave(claims={"email_verified": True})
    go(browser, provider)
    assert who(browser) == "ada-2"
    assert User.objects.get(username="ada-2").email == ""


@pytest.mark.parametrize(("verified", "kept"), [(True, "ada@example.org"), (False, ""), ("true", ""), (None, "")])
def test_only_a_verified_address_is_kept(browser: Client, provider: Provider, verified: Any, kept: str) -> None:
    provider.behave(claims={"email_verified": verified})
    go(browser, provider)
    assert User.objects.get(username="ada").email == kept


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ("bob@example.com", "bob"),
        ("group:lab", "group-lab"),
        ("Ada Lovelace", "Ada-Lovelace"),
        ("艾达", "艾达"),
        ("", "somebody"),
        ("/../", "user"),
        ("x" * 500, "x" * 120),
        (["a"], "somebody"),
        ("a\0b", "somebody"),
    ],
)
def test_names_are_made_fit(browser: Client, provider: Provider, claim: Any, name: str) -> None:
    provider.behave(claims={"preferred_username": claim, "email": "somebody@example.org"})
    assert go(browser, provider).status_code == 302
    assert who(browser) == name


def test_closed_registration_makes_no_account(browser: Client, provider: Provider, settings: Any) -> None:
    settings.OIDC_REGISTRATION = "closed"
    answer = go(browser, provider)
    assert answer.status_code == 403
    assert "no account here yet" in text(answer)
    assert not User.objects.exists()


def test_whoever_waits_is_told_so_until_approved(browser: Client, provider: Provider, settings: Any) -> None:
    settings.OIDC_REGISTRATION = "approval"
    for _time in range(2):
        answer = go(browser, provider)
        assert answer.status_code == 403
        assert "has to approve" in text(answer)
        assert who(browser) == ""
    people.approve_user(User.objects.get(username="ada"))
    go(browser, provider)
    assert who(browser) == "ada"


def test_whoever_is_blocked_is_refused(browser: Client, provider: Provider) -> None:
    go(browser, provider)
    people.block_user(User.objects.get(username="ada"))
    other = Client()
    answer = go(other, provider)
    assert answer.status_code == 403
    assert "not active" in text(answer)
    assert who(other) == ""
    assert AuditEntry.objects.filter(action="user.login_failed", target_name="ada").exists()


def test_an_account_without_a_password_has_no_other_way_in(browser: Client, provider: Provider) -> None:
    go(browser, provider)
    for password in ("", "!", PASSWORD):
        answer = Client().post("/api/v1/auth/login", {"username": "ada", "password": password}, "application/json")
        assert answer.status_code in {400, 401}


# -- connecting an account that is there ---------------------------------------------------------------------------------


def connect(browser: Client, provider: Provider, person: str, password: str = PASSWORD) -> HttpResponse:
    browser.handler.enforce_csrf_checks = False
    page = browser.post("/account/security/connect", {"sso-password": password})
    if page.status_code != 200:
        return page
    return browser.get(own_part(provider.log_in(page.context["address"], person)))


def test_an_account_is_connected_by_whoever_is_logged_in(browser: Client, provider: Provider, user: User) -> None:
    browser.force_login(user)
    assert connect(browser, provider, "ada")["Location"] == "/account/security"
    assert AuditEntry.objects.get(action="user.sso_connect").actor == user
    other = Client()
    go(other, provider)
    assert who(other) == "bob"
    assert User.objects.count() == 1


def test_connecting_takes_the_password_and_a_token_of_the_page(browser: Client, provider: Provider, user: User) -> None:
    browser.force_login(user)
    assert browser.post("/account/security/connect", {"sso-password": PASSWORD}).status_code == 403
    assert connect(browser, provider, "ada", "wrong").status_code == 302
    assert not SingleSignOnIdentity.objects.exists()
    assert provider.requests() == []


def test_somebody_else_s_identity_cannot_be_taken(browser: Client, provider: Provider, user: User) -> None:
    go(Client(), provider, "ada")
    browser.force_login(user)
    answer = connect(browser, provider, "ada")
    assert answer.status_code == 403
    assert "belongs to another account" in text(answer)
    assert SingleSignOnIdentity.objects.get().user.username == "ada"


def test_an_account_has_one_identity_at_a_provider(browser: Client, provider: Provider, user: User) -> None:
    browser.force_login(user)
    connect(browser, provider, "ada")
    assert connect(browser, provider, "eve").status_code == 403
    assert SingleSignOnIdentity.objects.get().subject == "ada"


def test_what_one_person_began_another_cannot_finish(
    browser: Client, provider: Provider, user: User, make_user: Callable[..., User]
) -> None:
    browser.force_login(user)
    browser.handler.enforce_csrf_checks = False
    address = browser.post("/account/security/connect", {"sso-password": PASSWORD}).context["address"]
    back = own_part(provider.log_in(address, "ada"))
    cookies = browser.cookies.copy()
    browser.force_login(make_user("eve"))
    browser.cookies.update({name: cookies[name] for name in cookies if name.startswith("sso-")})
    assert browser.get(back).status_code == 403
    assert not SingleSignOnIdentity.objects.exists()


def test_disconnecting_takes_the_password(browser: Client, provider: Provider, user: User) -> None:
    browser.force_login(user)
    connect(browser, provider, "ada")
    assert browser.post("/account/security/disconnect", {"sso-password": "wrong"}).status_code == 400
    assert SingleSignOnIdentity.objects.exists()
    assert browser.post("/account/security/disconnect", {"sso-password": PASSWORD}).status_code == 302
    assert not SingleSignOnIdentity.objects.exists()
    assert AuditEntry.objects.filter(action="user.sso_disconnect").exists()


def test_the_only_way_in_stays(browser: Client, provider: Provider) -> None:
    go(browser, provider)
    browser.handler.enforce_csrf_checks = False
    assert browser.post("/account/security/disconnect", {}).status_code == 400
    assert SingleSignOnIdentity.objects.exists()


# -- groups and roles ----------------------------------------------------------------------------------------------------


@pytest.fixture
def mapped(settings: Any, provider: Provider) -> None:
    settings.OIDC_GROUPS_CLAIM = "groups"
    settings.OIDC_OPERATORS, settings.OIDC_ADMINS = ["gpu-team"], ["root"]


@pytest.mark.usefixtures("mapped")
def test_the_provider_s_groups_decide_the_role_at_each_login(
    provider: Provider, make_user: Callable[..., User]
) -> None:
    make_user("anna", is_superuser=True, is_staff=True)
    for groups, role in [(["/gpu-team"], "operator"), (["x", "root"], "admin"), ("gpu-team", "operator"), ([], "user")]:
        provider.behave(claims={"groups": groups})
        go(Client(), provider)
        assert User.objects.get(username="ada").role == role
    entry = AuditEntry.objects.filter(action="user.role").order_by("pk").first()
    assert entry is not None
    assert (entry.actor, entry.actor_name) == (None, "service:single sign-on")


@pytest.mark.usefixtures("mapped")
def test_the_last_administrator_stays_one(provider: Provider) -> None:
    provider.behave(claims={"groups": ["root"]})
    go(Client(), provider)
    provider.behave()
    go(Client(), provider)
    assert User.objects.get(username="ada").role == "admin"


@pytest.mark.usefixtures("mapped")
def test_a_group_of_the_same_name_takes_them_in(provider: Provider) -> None:
    lab = Group.objects.create(name="Lab")
    provider.behave(claims={"groups": ["other", "lab"]})
    go(Client(), provider)
    assert User.objects.get(username="ada").group == lab
    provider.behave(claims={"groups": []})
    go(Client(), provider)
    assert User.objects.get(username="ada").group == lab


def test_without_a_mapping_the_provider_decides_nothing(browser: Client, provider: Provider) -> None:
    provider.behave(claims={"groups": ["root"], "role": "admin", "is_superuser": True})
    go(browser, provider)
    assert User.objects.get(username="ada").role == "user"


# -- what proves nothing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        "wrong_nonce",
        "no_nonce",
        "wrong_signature",
        "no_signature",
        "signed_with_client_secret",
        "wrong_issuer",
        "wrong_audience",
        "several_audiences",
        "expired",
        "no_expiry",
        "from_the_future",
        "no_subject",
        "invalid_grant",
    ],
)
def test_what_proves_nothing_lets_nobody_in(browser: Client, provider: Provider, failure: str) -> None:
    provider.behave(failure=failure)
    answer = go(browser, provider)
    assert answer.status_code == 400
    assert "proves nothing" in text(answer)
    assert who(browser) == ""
    assert not User.objects.exists()
    assert AuditEntry.objects.get(action="user.login_failed").changes["reason"] == [None, "single_sign_on"]
    provider.behave()
    go(browser, provider)
    assert who(browser) == "ada", "the next one is not disturbed by it"


def test_the_user_info_must_be_of_the_same_person(browser: Client, provider: Provider) -> None:
    provider.behave(failure="other_user_info", in_user_info=["email"])
    assert go(browser, provider).status_code == 400
    assert not User.objects.exists()


def test_the_state_must_be_the_one_that_was_sent(browser: Client, provider: Provider) -> None:
    back = own_part(provider.log_in(browser.get("/login/sso")["Location"], "ada"))
    stranger = Client()
    assert stranger.get(back).status_code == 400, "another browser"
    assert browser.get(back.replace("state=", "state=x")).status_code == 400
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert browser.get(back.replace(state, state[:16] + "0" * 14)).status_code == 400, "one that names the same cookie"
    assert (who(browser), who(stranger)) == ("", "")
    assert "/token" not in provider.requests()


def test_an_attempt_works_once(browser: Client, provider: Provider) -> None:
    back = own_part(provider.log_in(browser.get("/login/sso")["Location"], "ada"))
    assert browser.get(back).status_code == 302
    browser.logout()
    assert browser.get(back).status_code == 400


def test_a_cookie_that_was_changed_is_no_proof(browser: Client, provider: Provider) -> None:
    back = own_part(provider.log_in(browser.get("/login/sso")["Location"], "ada"))
    name = next(name for name in browser.cookies if name.startswith("sso-"))
    browser.cookies[name] = browser.cookies[name].value[:-1] + "_"
    assert browser.get(back).status_code == 400
    assert "/token" not in provider.requests()


def test_an_issuer_in_the_answer_must_be_the_right_one(browser: Client, provider: Provider) -> None:
    back = own_part(provider.log_in(browser.get("/login/sso")["Location"], "ada"))
    assert browser.get(f"{back}&iss=https://evil.example").status_code == 400
    assert not User.objects.exists()


@pytest.mark.parametrize(
    "query", ["", "state=", "code=x", "state=%00&code=%00", "state=é&code=x", "state=x&code=" + "y" * 9000]
)
def test_whatever_comes_back_is_answered_with_a_page(browser: Client, provider: Provider, query: str) -> None:
    assert browser.get(f"/login/sso/back?{query}").status_code == 400


def test_cancelling_is_told_without_the_provider_s_own_words(browser: Client, provider: Provider) -> None:
    provider.behave(failure="access_denied")
    answer = go(browser, provider)
    assert answer.status_code == 403
    assert "did not let you in" in text(answer)
    assert "<b>no</b>" not in text(answer)


# -- a provider in trouble -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["down", "not_json", "huge", "slow", "redirect"])
@pytest.mark.parametrize("at", [DISCOVERY, "/token", "/jwks", "/userinfo"])
def test_a_provider_in_trouble_is_a_page(
    browser: Client, provider: Provider, monkeypatch: pytest.MonkeyPatch, failure: str, at: str
) -> None:
    provider.behave(failure=failure, at=at, in_user_info=["email"])
    address = "" if at == DISCOVERY else browser.get("/login/sso")["Location"]
    if failure == "slow":
        monkeypatch.setattr(provider_http, "WHOLE_SECONDS", 0.2)
    answer = browser.get(own_part(provider.log_in(address, "ada")) if address else "/login/sso")
    assert answer.status_code == 502
    assert "does not answer as it should" in text(answer)
    assert "Traceback" not in text(answer)
    assert provider.issuer not in text(answer)
    assert "/elsewhere" not in provider.requests(), "redirects are not followed"
    assert not User.objects.exists()


def test_a_provider_that_is_not_there(browser: Client, provider: Provider, settings: Any) -> None:
    settings.OIDC_ISSUER = "http://127.0.0.1:1"
    assert browser.get("/login/sso").status_code == 502


@pytest.mark.parametrize("failure", ["other_issuer", "no_id_token"])
def test_a_provider_that_is_set_up_wrongly(browser: Client, provider: Provider, failure: str) -> None:
    provider.behave(failure=failure)
    sent = browser.get("/login/sso")
    answer = sent if failure == "other_issuer" else browser.get(own_part(provider.log_in(sent["Location"], "ada")))
    assert answer.status_code == 502


@pytest.mark.parametrize(
    "address",
    ["http://example.org/token", "file:///etc/passwd", "ftp://127.0.0.1/", "https://", "", None, 7, "https://[x"],
)
def test_only_proper_addresses_are_asked(provider: Provider, address: Any) -> None:
    with pytest.raises(provider_http.BadAnswer):
        provider_http.check_address(address)


def test_plain_http_is_for_a_provider_on_this_machine(settings: Any) -> None:
    settings.OIDC_ISSUER = "https://sso.example.org"
    provider_http.check_address("https://keys.example.org/jwks")
    with pytest.raises(provider_http.BadAnswer):
        provider_http.check_address("http://127.0.0.1/jwks")


def test_attempts_that_fail_are_counted(browser: Client, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 2)
    assert [go(Client(), provider).status_code for _time in range(3)] == [302] * 3
    provider.behave(failure="wrong_nonce")
    assert [go(Client(), provider).status_code for _time in range(2)] == [400, 400]
    assert browser.get("/login/sso").status_code == 429
    assert browser.get("/login/sso", REMOTE_ADDR="10.0.0.9").status_code == 302


def test_a_provider_that_is_down_is_not_asked_without_end(
    browser: Client, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 2)
    provider.behave(failure="down", at=DISCOVERY)
    assert [browser.get("/login/sso").status_code for _time in range(4)] == [502, 502, 429, 429]
    assert provider.requests().count(DISCOVERY) == 2


def test_the_log_holds_no_secret(browser: Client, provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    provider.behave(failure="wrong_nonce")
    sent = browser.get("/login/sso")
    back = own_part(provider.log_in(sent["Location"], "ada"))
    browser.get(back)
    code = parse_qs(urlsplit(back).query)["code"][0]
    assert "single sign-on" in caplog.text
    assert code not in caplog.text
    assert CLIENT_SECRET not in caplog.text
