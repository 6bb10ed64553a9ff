"""API keys in the console: found, made, changed, rotated, revoked; the secret is shown once."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import keys
from accounts.models import ApiKey, AuditEntry, User
from accounts.secrets_at_rest import keyed_hash
from tests.console.conftest import in_dialog, logged_in, make_group, make_key, make_model, once, person

KEYS = "/admin/accounts/apikey/"
RULES = {"name": "notebook", "scopes": ["inference"], "which_models": "all"}


def make(client: Client, query: str = "", **fields):
    return client.post(f"{KEYS}add/{query}", {**RULES, "once": once(), **fields})


def secret_in(answer) -> str:
    found = re.search(r'id="secret"[^>]*>(sk-[\w-]{43})<', answer.content.decode())
    assert found is not None
    return found[1]


def listed(client: Client, query: str = "") -> list[str]:
    return [key.name for key in client.get(KEYS + query, follow=True).context["cl"].result_list]


# -- making ------------------------------------------------------------------------------------------------------------


def test_the_secret_is_shown_once_and_stored_nowhere(as_administrator: Client, administrator: User, user: User):
    answer = make(as_administrator, f"?user={user.pk}")
    assert "no-store" in answer["Cache-Control"]
    secret, key = secret_in(answer), ApiKey.objects.get()
    assert (key.user, key.created_by, key.name) == (user, administrator, "notebook")
    assert key.hash == keyed_hash("api key", secret)
    for path in (KEYS, f"{KEYS}{key.pk}/change/", f"/admin/accounts/user/{user.pk}/change/"):
        page = as_administrator.get(path).content.decode()
        assert secret not in page
        assert secret[9:-4] not in page
        assert f"{key.prefix}…{key.last4}" in page


def test_sending_the_form_twice_makes_one_key(as_administrator: Client, user: User):
    nonce = once()
    secret_in(make(as_administrator, f"?user={user.pk}", once=nonce))
    again = make(as_administrator, f"?user={user.pk}", once=nonce)
    assert again["Location"] == f"/admin/accounts/user/{user.pk}/change/"
    assert ApiKey.objects.count() == 1


def test_every_rule_is_stored(as_administrator: Client, user: User):
    make_model("tiny")
    until = timezone.localtime(timezone.now() + timedelta(days=9)).replace(second=0, microsecond=0)
    make(
        as_administrator,
        f"?user={user.pk}",
        scopes=["inference", "usage:read"],
        which_models="chosen",
        allowed_models=["tiny"],
        expires_at=until.strftime("%Y-%m-%dT%H:%M"),
        allowed_addresses="10.0.0.0/8\r\n2001:db8::/32, 192.0.2.7",
        priority="batch",
        budget="2.5",
        budget_period="month",
        requests_per_minute="10",
        concurrent_requests="2",
    )
    key = ApiKey.objects.get()
    assert (key.scopes, key.allowed_models) == (["inference", "usage:read"], ["tiny"])
    assert key.allowed_addresses == ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]
    assert (key.expires_at, key.budget, key.budget_period) == (until, 2_500_000, "month")
    assert key.priority == "batch"
    for path in (KEYS, f"{KEYS}{key.pk}/change/"):
        assert re.search(r">\s*batch\s*<", as_administrator.get(path).content.decode())
    assert (key.requests_per_minute, key.tokens_per_minute, key.concurrent_requests) == (10, 0, 2)


def test_the_owner_is_named_where_the_page_does_not_know(as_administrator: Client, user: User):
    group = make_group()
    assert as_administrator.get(f"{KEYS}add/").context["form"].fields["username"]
    secret_in(make(as_administrator, username="BEN"))
    secret_in(make(as_administrator, group=group.pk))
    assert {key.user.username for key in ApiKey.objects.all()} == {"ben", "group:staff"}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "username"),
        ({"username": "nobody"}, "username"),
        ({"username": "group:staff"}, "username"),
        ({"username": "a\x00b"}, "username"),
        ({"username": "ben", "name": ""}, "name"),
        ({"username": "ben", "scopes": []}, "scopes"),
        ({"username": "ben", "scopes": ["root"]}, "scopes"),
        ({"username": "ben", "allowed_addresses": "here"}, "allowed_addresses"),
        ({"username": "ben", "expires_at": "2001-01-01T00:00"}, "expires_at"),
        ({"username": "ben", "priority": "urgent"}, "priority"),
        ({"username": "ben", "budget": "-1"}, "budget"),
        ({"username": "ben", "which_models": "chosen"}, "allowed_models"),
        ({"username": "ben", "requests_per_minute": "x"}, "requests_per_minute"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(as_administrator: Client, user: User, fields: dict, wrong: str):
    make_group(service=True)
    answer = make(as_administrator, **fields)
    assert list(answer.context["form"].errors) == [wrong]
    assert not ApiKey.objects.exists()


def test_a_person_or_a_group_but_not_both(as_administrator: Client, user: User):
    answer = make(as_administrator, username="ben", group=make_group().pk)
    assert answer.context["form"].errors["username"]
    assert not ApiKey.objects.exists()


# -- finding -----------------------------------------------------------------------------------------------------------


def test_filters_and_search(as_administrator: Client, user: User, administrator: User):
    group = make_group(service=True)
    live, job = make_key(user, "laptop"), make_key(group.service_account, "nightly job")
    keys.revoke_key(make_key(administrator, "lost"))
    ApiKey.objects.filter(pk=make_key(user, "old").pk).update(expires_at=timezone.now() - timedelta(days=1))
    assert set(listed(as_administrator, "?status=active")) == {"laptop", "nightly job"}
    assert listed(as_administrator, "?status=expired") == ["old"]
    assert listed(as_administrator, "?status=revoked") == ["lost"]
    assert listed(as_administrator, "?of=service") == ["nightly job"]
    assert set(listed(as_administrator, f"?owner={user.pk}")) == {"laptop", "old"}
    assert listed(as_administrator, "?owner=999999") == []
    assert listed(as_administrator, "?owner=x") == []
    assert listed(as_administrator, "?q=night") == ["nightly job"]
    assert set(listed(as_administrator, "?q=BE")) == {"laptop", "old"}
    assert listed(as_administrator, f"?q={job.last4}") == ["nightly job"]
    assert listed(as_administrator, f"?q={live.prefix}") == ["laptop"]
    assert listed(as_administrator, f"?q={live.prefix}{'x' * 30}{live.last4}") == ["laptop"]
    assert listed(as_administrator, "?q=%25") == []


def test_the_list_takes_few_queries(as_administrator: Client, django_assert_max_num_queries):
    group = make_group(service=True)
    for number in range(60):
        key = make_key(group.service_account if number % 3 == 0 else person(f"u{number}"), f"key {number}", budget=5)
        if number % 10 == 1:
            keys.rotate_key(key, timedelta(hours=1))
    with django_assert_max_num_queries(5):  # session and user; how many are found, how many there are; the rows
        page = as_administrator.get(KEYS).content.decode()
    assert "key 59" in page


# -- changing ----------------------------------------------------------------------------------------------------------


def test_rules_can_be_changed_and_the_key_stays(as_administrator: Client, user: User):
    key = make_key(user, allowed_models=["gone"], requests_per_minute=5, priority="batch")
    path = f"{KEYS}{key.pk}/change_rules/"
    form = as_administrator.get(path).context["form"]
    assert (form["name"].value(), form["requests_per_minute"].value(), form["allowed_models"].value()) == (
        "notebook",
        5,
        ["gone"],
    )
    assert form["priority"].value() == "batch"
    data = {**RULES, "_form_submitted": "on", "name": "other", "priority": "interactive", "tokens_per_minute": "7"}
    assert as_administrator.post(path, data).status_code == 302
    stored = ApiKey.objects.get()
    assert (stored.name, stored.requests_per_minute, stored.tokens_per_minute) == ("other", 0, 7)
    assert (stored.hash, stored.allowed_models, stored.priority) == (key.hash, [], "interactive")
    assert AuditEntry.objects.filter(action="key.update").latest("pk").changes["priority"] == ["batch", "interactive"]
    answer = as_administrator.post(path, {**data, "allowed_addresses": "x"})
    assert answer.context["form"].errors["allowed_addresses"]


def test_rotating_shows_a_new_secret_and_the_old_one_works_on(as_administrator: Client, user: User):
    key = make_key(user, requests_per_minute=5)
    path, nonce = f"{KEYS}{key.pk}/rotate/", once()
    answer = as_administrator.post(path, {"_form_submitted": "on", "once": nonce, "overlap": "24"})
    assert "no-store" in answer["Cache-Control"]
    made = ApiKey.objects.get(hash=keyed_hash("api key", secret_in(answer)))
    assert (made.replaces, made.requests_per_minute, made.user) == (key, 5, user)
    key.refresh_from_db()
    assert keys.is_live(key)
    assert key.expires_at is not None
    as_administrator.post(path, {"_form_submitted": "on", "once": nonce, "overlap": "24"})
    assert ApiKey.objects.count() == 2


def test_a_key_that_works_no_more_is_not_rotated(as_administrator: Client, user: User):
    key = make_key(user)
    keys.revoke_key(key)
    answer = as_administrator.post(f"{KEYS}{key.pk}/rotate/", {"_form_submitted": "on", "once": once(), "overlap": "0"})
    assert "revoked or has expired" in answer.content.decode()
    assert ApiKey.objects.count() == 1
    assert "rotate/" not in as_administrator.get(f"{KEYS}{key.pk}/change/").content.decode()


def test_revoking_one_and_many(as_administrator: Client, user: User):
    one, two, three = (make_key(user, f"key {number}") for number in range(3))
    in_dialog(as_administrator, f"{KEYS}{one.pk}/revoke/")
    assert not keys.is_live(ApiKey.objects.get(pk=one.pk))
    chosen = {"action": "revoke_chosen", "_selected_action": [two.pk, three.pk]}
    asked = as_administrator.post(KEYS, chosen).content.decode()
    assert "cannot be undone" in asked
    assert keys.live_keys(user).count() == 2
    as_administrator.post(KEYS, {**chosen, "confirmed": "yes"})
    assert keys.live_keys(user).count() == 0


@pytest.mark.parametrize("name", ["rotate", "revoke", "change_rules"])
def test_operators_do_nothing_with_keys(operator: User, user: User, name: str):
    key = make_key(user)
    data = {**RULES, "_form_submitted": "on", "once": once(), "overlap": "0"}
    assert logged_in(operator).post(f"{KEYS}{key.pk}/{name}/", data).status_code == 403
    assert make(logged_in(operator), f"?user={user.pk}").status_code == 403
    assert ApiKey.objects.count() == 1
    assert keys.is_live(ApiKey.objects.get())
