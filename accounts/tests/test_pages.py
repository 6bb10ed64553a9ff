"""The pages for logging in, registering, the password and the account."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from accounts import quota, services
from accounts.models import User
from accounts.quota import Settlement, UsageFigures

PASSWORD = "plenty of rain today"


@pytest.fixture(autouse=True)
def _pages(settings):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.ALLOWED_HOSTS = ["testserver"]
    cache.clear()


@pytest.fixture
def anna(db) -> User:
    return services.create_user("anna", PASSWORD, "anna@example.com")


@pytest.fixture
def client() -> Client:
    return Client()


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def log_in(client: Client, name: str, password: str = PASSWORD, **fields: str):
    return client.post("/login", {"username": name, "password": password, **fields})


# -- logging in and out ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["anna", "ANNA", "anna@example.com"])
def test_login_by_name_or_address_ignoring_case(client, anna, name):
    assert log_in(client, name).headers["Location"] == "/"
    assert client.get("/account").status_code == 200


def test_wrong_password_and_unknown_name_read_the_same(client, anna):
    answers = [log_in(client, "anna", "wrong"), log_in(client, "nobody", "wrong")]
    texts = [[str(error) for error in answer.context["form"].non_field_errors()] for answer in answers]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert texts[0] == texts[1] != []


def test_an_account_that_waits_for_approval_is_told_so(client, anna):
    User.objects.update(is_active=False)
    answer = log_in(client, "anna")
    assert "not active" in answer.content.decode()
    assert client.get("/account").status_code == 302


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "\\\\evil.example"]
)
def test_next_leads_nowhere_else(client, anna, target):
    assert log_in(client, "anna", next=target).headers["Location"] == "/"


def test_next_leads_back(client, anna):
    assert client.get("/account").headers["Location"] == "/login?next=/account"
    assert log_in(client, "anna", next="/account").headers["Location"] == "/account"


def test_too_many_attempts_from_one_address(client, anna):
    statuses = [log_in(client, f"anna{number}", "wrong").status_code for number in range(31)]
    assert statuses[:30] == [200] * 30
    assert statuses[30] == 429
    refused = log_in(client, "anna")
    assert refused.status_code == 429
    assert "Too many attempts" in refused.content.decode()


def test_logging_out_takes_a_post(client, anna):
    client.force_login(anna)
    assert client.get("/logout").status_code == 405
    assert client.post("/logout").headers["Location"] == "/login"
    assert client.get("/account").status_code == 302


# -- registering -------------------------------------------------------------------------------------------------------
def register(client: Client, **changes: str):
    fields = {"username": "ben", "email": "ben@example.com", "password": PASSWORD}
    return client.post("/register", {**fields, **changes})


@pytest.mark.django_db
def test_registering_logs_in_and_gives_the_first_credit(client, settings):
    settings.REGISTRATION = "open"
    assert register(client).status_code == 302
    page = client.get("/account").content.decode()
    assert "ben" in page
    assert User.objects.get().wallet.available == settings.DEFAULT_TOKENS * settings.TOKEN_PRICE


@pytest.mark.parametrize(
    ("field", "value"),
    [("username", "ANNA"), ("email", "Anna@Example.com"), ("password", "12345678"), ("username", "a b")],
)
def test_registering_says_what_is_wrong_at_the_field(client, anna, settings, field, value):
    settings.REGISTRATION = "open"
    answer = register(client, **{field: value})
    assert answer.context["form"].errors.get(field)
    assert User.objects.count() == 1


@pytest.mark.django_db
def test_closed_registration_says_whom_to_ask(client, settings):
    settings.REGISTRATION = "closed"
    assert "administrator" in client.get("/register").content.decode()
    assert register(client).status_code == 403
    assert not User.objects.exists()


@pytest.mark.django_db
def test_registration_with_approval_makes_an_account_that_waits(client, settings):
    settings.REGISTRATION = "approval"
    assert "approve" in register(client).content.decode()
    assert User.objects.get().is_active is False
    assert client.get("/account").status_code == 302


# -- the password ------------------------------------------------------------------------------------------------------
def test_first_password_has_to_be_changed_before_anything_else(client, anna):
    services.set_password(anna, PASSWORD, must_change=True)
    log_in(client, "anna")
    assert [client.get(path).headers["Location"] for path in ("/chat/", "/account", "/admin/")] == ["/password"] * 3
    assert client.get("/healthz").status_code == 200
    assert client.post("/password", {"new_password": PASSWORD}).context["form"].errors["new_password"]
    assert client.post("/password", {"new_password": "12345678"}).context["form"].errors["new_password"]
    assert client.post("/password", {"new_password": "a better one now"}).headers["Location"] == "/"
    assert client.get("/account").status_code == 200


def test_changing_the_password_keeps_this_session_and_ends_others(anna):
    here, elsewhere = logged_in(anna), logged_in(anna)
    fields = {"old_password": PASSWORD, "new_password": "a better one now"}
    assert here.post("/password", {**fields, "old_password": "wrong"}).context["form"].errors["old_password"]
    assert here.post("/password", fields).headers["Location"] == "/account"
    assert here.get("/account").status_code == 200
    assert elsewhere.get("/account").status_code == 302


# -- language ----------------------------------------------------------------------------------------------------------
def test_language_choice_stays_with_the_person(anna):
    here, elsewhere = logged_in(anna), Client()
    answer = here.post("/language", {"language": "zh-hans", "next": "/account"})
    assert answer.headers["Location"] == "/account"
    assert 'lang="zh-hans"' in here.get("/account").content.decode()
    log_in(elsewhere, "anna")
    assert '<html lang="zh-hans"' in elsewhere.get("/account").content.decode()


def test_language_switch_leads_nowhere_else_and_takes_no_unknown_one(anna):
    client = logged_in(anna)
    answer = client.post("/language", {"language": "xx", "next": "https://evil.example/"})
    assert answer.headers["Location"] == "/"
    anna.refresh_from_db()
    assert anna.language == ""


# -- the account -------------------------------------------------------------------------------------------------------
def use(user: User, number: int, at: datetime | None = None, prompt_tokens: int = 10) -> None:
    figures = UsageFigures(
        model_name="m",
        endpoint="chat.completions",
        status=200,
        outcome="completed",
        prompt_tokens=prompt_tokens,
        completion_tokens=5,
        created_at=at or timezone.now(),
    )
    quota.settle(Settlement(f"req-{number}", user.wallet.pk, figures))


def test_account_page_shows_balance_and_own_use_only(anna):
    ben = services.create_user("ben", PASSWORD)
    use(anna, 1)
    use(ben, 2, prompt_tokens=70_000)
    page = logged_in(anna).get("/account")
    assert page.context["usage"].tokens == 15
    assert page.context["used_credits"] == "0.015"
    assert "70,0" not in page.content.decode()


def test_account_page_asks_the_database_as_often_for_many_records(anna, django_assert_max_num_queries):
    for number in range(50):
        use(anna, number, timezone.now() - timedelta(hours=number * 7))
    client = logged_in(anna)
    with django_assert_max_num_queries(6):
        assert client.get("/account").status_code == 200


def test_profile_is_saved_or_says_why_not(anna):
    services.create_user("ben", PASSWORD, "ben@example.com")
    client = logged_in(anna)
    taken = client.post("/account", {"email": "BEN@example.com", "language": ""})
    assert taken.context["form"].errors["email"]
    assert client.post("/account", {"email": "new@example.com", "language": "en"}).status_code == 302
    anna.refresh_from_db()
    assert (anna.email, anna.language) == ("new@example.com", "en")


def test_token_of_the_account_page_opens_the_api(anna):
    page = logged_in(anna).post("/account/token")
    token = page.context["token"]
    assert page.headers["Cache-Control"] == "no-store"
    me = Client().get("/api/v1/auth/me", HTTP_AUTHORIZATION=f"Bearer {token}")
    assert me.status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/login", "/register", "/nothing-here"])
def test_pages_hold_nothing_the_content_policy_refuses(client, path):
    text = client.get(path).content.decode()
    assert "style=" not in text
    assert "onclick" not in text
    assert "<script>" not in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
