"""Groups in the console: their rules, their members, the keys of their services."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts.models import ApiKey, Group, User
from tests.console.conftest import in_dialog, make_group, make_key, make_model, once, person

GROUPS = "/admin/accounts/group/"
NOTHING = {"name": "staff", "which_models": "all", "allowance_period": "month", "queue_weight": "1"}


def add(client: Client, **fields):
    return client.post(f"{GROUPS}add/", {**NOTHING, **fields})


def change(client: Client, group: Group, **fields):
    return client.post(f"{GROUPS}{group.pk}/change/", {**NOTHING, "name": group.name, **fields})


def test_a_group_is_made_in_credits_and_names_of_models(as_administrator: Client):
    make_model("tiny")
    make_model("large")
    fields = {"starting_balance": "12.5", "allowance": "100", "allowance_period": "week", "requests_per_minute": "600"}
    models = {"which_models": "chosen", "allowed_models": ["tiny"]}
    fields |= {"member_tokens_per_minute": "5000", "queue_weight": "3"}
    answer = add(as_administrator, description="the staff", **fields, **models)
    assert answer.status_code == 302
    made = Group.objects.get()
    assert (made.name, made.description, made.allowed_models) == ("staff", "the staff", ["tiny"])
    assert (made.starting_balance, made.allowance, made.allowance_period) == (12_500_000, 100_000_000, "week")
    assert (made.requests_per_minute, made.member_tokens_per_minute, made.concurrent_requests) == (600, 5000, 0)
    assert made.queue_weight == 3


def test_aliases_may_be_chosen_too(as_administrator: Client):
    make_model("tiny", aliases=["gpt-4o"])
    group = make_group(allowed_models=["gpt-4o"])
    page = as_administrator.get(f"{GROUPS}{group.pk}/change/").content.decode()
    assert "gpt-4o (alias of tiny)" in page
    assert "does not exist now" not in page


def test_names_of_models_that_are_gone_are_kept(as_administrator: Client):
    make_model("tiny")
    group = make_group(allowed_models=["gone", "tiny"])
    page = as_administrator.get(f"{GROUPS}{group.pk}/change/").content.decode()
    assert "gone (does not exist now)" in page
    change(as_administrator, group, which_models="chosen", allowed_models=["gone", "tiny"])
    group.refresh_from_db()
    assert set(group.allowed_models) == {"gone", "tiny"}
    answer = change(as_administrator, group, which_models="chosen", allowed_models=["never heard of"])
    assert answer.context["adminform"].form.errors["allowed_models"]


def test_taking_the_last_model_away_does_not_open_all(as_administrator: Client):
    make_model("tiny")
    group = make_group(allowed_models=["tiny"])
    answer = change(as_administrator, group, which_models="chosen")
    assert answer.context["adminform"].form.errors["allowed_models"]
    group.refresh_from_db()
    assert group.allowed_models == ["tiny"]
    change(as_administrator, group, which_models="all", allowed_models=["tiny"])
    group.refresh_from_db()
    assert group.allowed_models == []


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, "name"),
        ({"name": "OTHER"}, "name"),
        ({"allowance": "-1"}, "allowance"),
        ({"starting_balance": "x"}, "starting_balance"),
        ({"requests_per_minute": "-1"}, "requests_per_minute"),
        ({"allowance_period": "hour"}, "allowance_period"),
        ({"queue_weight": "0"}, "queue_weight"),
        ({"queue_weight": "101"}, "queue_weight"),
        ({"queue_weight": ""}, "queue_weight"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(as_administrator: Client, fields: dict, wrong: str):
    make_group("other")
    answer = add(as_administrator, **fields)
    assert answer.status_code == 200
    assert wrong in answer.context["adminform"].form.errors
    assert Group.objects.count() == 1


def test_a_changed_allowance_is_given_to_the_members(as_administrator: Client, user: User):
    group = make_group()
    User.objects.filter(pk=user.pk).update(group=group)
    change(as_administrator, group, allowance="3")
    assert user.wallet.entries.filter(kind="grant", available_change=3_000_000).exists()


def test_a_group_shows_its_members_and_keys(as_administrator: Client):
    group = make_group(service=True)
    for number in range(12):
        person(f"member{number:02}", group=group)
    make_key(group.service_account, "nightly job")
    page = as_administrator.get(f"{GROUPS}{group.pk}/change/").content.decode()
    assert "member09" in page
    assert "All members (12)" in page
    assert "nightly job" in page
    assert f"/admin/accounts/apikey/add/?group={group.pk}" in page
    listed = as_administrator.get(f"/admin/accounts/user/?group__id__exact={group.pk}").content.decode()
    assert "member11" in listed


def test_a_group_in_use_is_not_deleted(as_administrator: Client, user: User):
    group = make_group()
    User.objects.filter(pk=user.pk).update(group=group)
    answer = as_administrator.post(f"{GROUPS}{group.pk}/delete/", {"post": "yes"}, follow=True)
    assert "still belong to this group" in answer.content.decode()
    User.objects.update(group=None)
    as_administrator.post(f"{GROUPS}{group.pk}/delete/", {"post": "yes"})
    assert not Group.objects.exists()


def test_the_services_have_a_balance_once_there_are_any(as_administrator: Client):
    group = make_group()
    path = f"{GROUPS}{group.pk}/top_up/"
    assert f"{group.pk}/top_up/" not in as_administrator.get(f"{GROUPS}{group.pk}/change/").content.decode()
    assert as_administrator.get(path).status_code == 404
    assert not User.objects.filter(service_of=group).exists()
    data = {"once": once(), "name": "job", "scopes": ["inference"], "which_models": "all"}
    as_administrator.post(f"/admin/accounts/apikey/add/?group={group.pk}", data)
    assert ApiKey.objects.get().user.service_of == group
    assert f"{group.pk}/top_up/" in as_administrator.get(f"{GROUPS}{group.pk}/change/").content.decode()
    in_dialog(as_administrator, path, credits="9")
    assert ApiKey.objects.get().user.wallet.entries.filter(kind="topup", available_change=9_000_000).exists()


def test_the_list_takes_few_queries(as_administrator: Client, django_assert_max_num_queries):
    for number in range(40):
        group = make_group(f"group {number}", service=number % 2 == 0)
        person(f"member{number}", group=group)
    with django_assert_max_num_queries(5):
        page = as_administrator.get(GROUPS).content.decode()
    assert "group 39" in page
