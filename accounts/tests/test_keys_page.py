"""/account/keys: one's own API keys in the browser."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from accounts import keys
from accounts.keys import NewKey
from accounts.models import ApiKey

pytestmark = pytest.mark.django_db
PATH = "/account/keys"
SECRET = re.compile(r"sk-[A-Za-z0-9_-]{43}")


@pytest.fixture(autouse=True)
def _pages(settings):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


def logged_in(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def make(user, **wanted) -> ApiKey:
    return keys.create_key(user, NewKey(**{"name": "k", **wanted}))[0]


def test_the_key_is_shown_once(user):
    page = logged_in(user)
    made = page.post(PATH, {"name": "laptop", "scopes": ["inference"]})
    [secret] = set(SECRET.findall(made.content.decode()))
    assert made.headers["Cache-Control"] == "no-store"
    key = ApiKey.objects.get()
    assert (key.name, key.user, key.scopes, key.last4) == ("laptop", user, ["inference"], secret[-4:])
    assert not SECRET.search(page.get(PATH).content.decode())


def test_only_operators_are_offered_what_only_operators_can(user, make_user):
    def offered(owner) -> bool:
        return 'value="models:write"' in logged_in(owner).get(PATH).content.decode()

    assert not offered(user)
    assert offered(make_user(is_staff=True))
    wrong = logged_in(user).post(PATH, {"name": "k", "scopes": ["models:write"]})
    assert wrong.status_code == 400
    assert not ApiKey.objects.exists()


def test_everything_in_the_form_reaches_the_key(user):
    fields = {
        "name": "all",
        "scopes": ["usage:read", "inference"],
        "expires": "30",
        "models": "a， b、c",
        "addresses": "10.0.0.1/8\n2001:db8::/32",
        "priority": "batch",
        "budget": "1.5",
        "budget_period": "week",
        "requests_per_minute": "5",
        "tokens_per_minute": "",
        "concurrent_requests": "2",
    }
    assert logged_in(user).post(PATH, fields).status_code == 200
    key = ApiKey.objects.get()
    assert (key.scopes, key.allowed_models) == (["inference", "usage:read"], ["a", "b", "c"])
    assert key.allowed_addresses == ["10.0.0.0/8", "2001:db8::/32"]
    assert (key.priority, key.budget, key.budget_period) == ("batch", 1_500_000, "week")
    assert "priority: batch" in logged_in(user).get(PATH).content.decode()
    assert (key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests) == (5, 0, 2)
    assert (key.expires_at - key.created_at).days in {29, 30}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": ""}),
        ("scopes", {"scopes": []}),
        ("scopes", {"scopes": ["root"]}),
        ("addresses", {"addresses": "10.0.0.0/99"}),
        ("expires", {"expires": "-1"}),
        ("priority", {"priority": "urgent"}),
        ("budget", {"budget": "-1"}),
        ("budget", {"budget": "NaN"}),
        ("requests_per_minute", {"requests_per_minute": "x"}),
    ],
)
def test_what_is_wrong_is_told_at_its_field(user, field, change):
    answer = logged_in(user).post(PATH, {"name": "k", "scopes": ["inference"], **change})
    assert answer.status_code == 400
    assert list(answer.context["form"].errors) == [field]
    assert not ApiKey.objects.exists()


def test_further_bounds_open_where_something_is_filled_in(user):
    wrong = {"name": "", "scopes": ["inference"], "priority": "interactive", "budget_period": ""}
    for more, opened in (({}, False), ({"priority": "batch"}, True), ({"models": "a"}, True)):
        assert logged_in(user).post(PATH, {**wrong, **more}).context["form"].further_is_open is opened


def test_revoking_and_a_new_secret(user):
    key = make(user)
    page = logged_in(user)
    rotated = page.post(f"{PATH}/{key.pk}/rotate")
    assert SECRET.search(rotated.content.decode())
    assert rotated.headers["Cache-Control"] == "no-store"
    assert page.post(f"{PATH}/{key.pk}/revoke", follow=True).status_code == 200
    key.refresh_from_db()
    assert key.revoked_at
    refused = page.post(f"{PATH}/{key.pk}/rotate", follow=True)
    assert not SECRET.search(refused.content.decode())


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_nobody_elses(user, make_user, action):
    key = make(make_user())
    assert logged_in(user).post(f"{PATH}/{key.pk}/{action}").status_code == 404
    assert logged_in(user).get(f"{PATH}/{key.pk}/{action}").status_code == 405
    key.refresh_from_db()
    assert (key.revoked_at, ApiKey.objects.count()) == (None, 1)


def test_others_keys_are_not_on_the_page(user, make_user):
    make(make_user(), name="not mine")
    assert "not mine" not in logged_in(user).get(PATH).content.decode()


def test_names_are_text(user):
    make(user, name="<script>alert(1)</script>")
    assert "<script>alert" not in logged_in(user).get(PATH).content.decode()


def test_a_page_costs_few_queries_however_many_keys(user, django_assert_max_num_queries):
    for number in range(30):
        make(user, name=f"k{number}")
    page = logged_in(user)
    with django_assert_max_num_queries(4):
        page.get(PATH)
