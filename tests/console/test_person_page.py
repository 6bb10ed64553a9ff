"""The page of one person: access, limits, balance, keys, what was used."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts import quota
from accounts.ledger_checks import ledger_problems
from accounts.models import LedgerEntry, User
from tests.console.conftest import in_dialog, make_group, make_key, make_usage, person

USERS = "/admin/accounts/user/"


def page(client: Client, user: User) -> str:
    return client.get(f"{USERS}{user.pk}/change/").content.decode()


def change(client: Client, user: User, **fields):
    data = {"username": user.username, "email": user.email, "role": user.role, "is_active": "on", "language": ""}
    return client.post(f"{USERS}{user.pk}/change/", {**data, **fields})


def test_everything_about_a_person_is_in_one_place(as_administrator: Client, user: User):
    make_key(user, "notebook")
    make_usage(3, user, cost=2_500_000)
    shown = page(as_administrator, user)
    for text in ("1.00", "notebook", "sk-", "tiny", "2.50"):
        assert text in shown
    assert f"/admin/accounts/ledgerentry/?owner={user.pk}" in shown
    assert f"/admin/accounts/apikey/add/?user={user.pk}" in shown


def test_limits_are_the_persons_own_or_the_groups(as_administrator: Client, user: User):
    group = make_group("staff", member_requests_per_minute=60)
    assert change(as_administrator, user, group=group.pk).status_code == 302
    assert 'placeholder="by the group: 60"' in page(as_administrator, user)
    change(as_administrator, user, group=group.pk, requests_per_minute=5, tokens_per_minute=0)
    user.refresh_from_db()
    assert (user.requests_per_minute, user.tokens_per_minute, user.concurrent_requests) == (5, 0, None)
    change(as_administrator, user, group="")
    user.refresh_from_db()
    assert (user.group, user.requests_per_minute) == (None, None)


@pytest.mark.parametrize("value", ["-1", "x", "1.5", str(2**31)])
def test_a_wrong_limit_is_said_beside_its_field(as_administrator: Client, user: User, value: str):
    answer = change(as_administrator, user, requests_per_minute=value)
    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors["requests_per_minute"]


def test_names_of_people_have_no_colon(as_administrator: Client, user: User):
    assert change(as_administrator, user, username="group:x").status_code == 200
    assert User.objects.filter(username="ben").exists()


def test_moving_to_a_group_gives_its_allowance(as_administrator: Client, user: User):
    change(as_administrator, user, group=make_group("staff", allowance=7_000_000).pk)
    assert user.wallet.entries.filter(kind="grant", available_change=7_000_000).exists()
    assert "7.00 credits every month, by the group" in page(as_administrator, user)


def test_a_person_who_waits_is_approved_by_the_form_too(as_administrator: Client):
    new = person("new", is_active=False, waiting=True)
    change(as_administrator, new, is_active="on")
    new.refresh_from_db()
    assert (new.is_active, new.waiting) == (True, False)


def test_a_new_person_begins_with_what_the_group_gives(as_administrator: Client):
    group = make_group("staff", starting_balance=3_000_000)
    password = "correct horse battery"
    data = {"username": "cleo", "email": "", "password1": password, "password2": password, "role": "user"}
    assert as_administrator.post(f"{USERS}add/", {**data, "group": group.pk}).status_code == 302
    made = User.objects.get(username="cleo")
    assert (made.group, made.wallet.available) == (group, 3_000_000)
    taken = as_administrator.post(f"{USERS}add/", {**data, "username": "CLEO"})
    assert taken.status_code == 200
    assert User.objects.filter(username__iexact="cleo").count() == 1


# -- balance -------------------------------------------------------------------------------------------------------


def test_a_correction_takes_at_most_what_is_there(as_administrator: Client, user: User):
    path = f"{USERS}{user.pk}/correct/"
    refused = in_dialog(as_administrator, path, credits="-2", note="mistake").content.decode()
    assert "Only 1.00 credits are available." in refused
    in_dialog(as_administrator, path, credits="-0.25", note="mistake")
    user.wallet.refresh_from_db()
    assert user.wallet.available == 750_000
    assert LedgerEntry.objects.get(kind="adjust").note == "mistake"
    assert ledger_problems() == []


@pytest.mark.parametrize(
    "data", [{"credits": "0", "note": "x"}, {"credits": "1", "note": ""}, {"credits": "", "note": "x"}]
)
def test_a_correction_needs_an_amount_and_a_reason(as_administrator: Client, user: User, data: dict):
    assert "HX-Redirect" not in in_dialog(as_administrator, f"{USERS}{user.pk}/correct/", **data)
    assert not LedgerEntry.objects.filter(kind="adjust").exists()


def test_credit_that_lasts_some_days(as_administrator: Client, user: User):
    in_dialog(as_administrator, f"{USERS}{user.pk}/top_up/", credits="4", days="30")
    lot = user.wallet.lots.get()
    assert (lot.amount, lot.unused) == (4_000_000, 4_000_000)


def test_a_balance_never_becomes_too_large(as_administrator: Client, user: User):
    type(user.wallet).objects.filter(pk=user.wallet.pk).update(available=10**18)
    answer = in_dialog(as_administrator, f"{USERS}{user.pk}/top_up/", credits="1").content.decode()
    assert "too large" in answer


def test_unlimited_and_back(as_administrator: Client, user: User):
    path = f"{USERS}{user.pk}/unlimited_or_not/"
    in_dialog(as_administrator, path, unlimited="yes")
    user.wallet.refresh_from_db()
    assert user.wallet.unlimited
    assert as_administrator.get(path).context["form"]["unlimited"].value() == "yes"
    in_dialog(as_administrator, path, unlimited="no")
    user.wallet.refresh_from_db()
    assert not user.wallet.unlimited


def test_an_own_allowance(as_administrator: Client, user: User):
    path = f"{USERS}{user.pk}/set_allowance/"
    in_dialog(as_administrator, path, credits="10", period="week")
    user.wallet.refresh_from_db()
    assert (user.wallet.allowance, user.wallet.allowance_period) == (10_000_000, "week")
    assert user.wallet.available == 11_000_000
    form = as_administrator.get(path).context["form"]
    assert (form["credits"].value(), form["period"].value()) == ("10", "week")
    in_dialog(as_administrator, path, credits="", period="month")
    user.wallet.refresh_from_db()
    assert user.wallet.allowance is None


# -- who is not in the list --------------------------------------------------------------------------------------------


def test_service_accounts_are_no_people(as_administrator: Client, user: User):
    make_group("staff", service=True)
    service = User.objects.get(service_of__name="staff")
    assert "group:staff" not in as_administrator.get(USERS).content.decode()
    for path in ("change", "password", "top_up", "block"):
        answer = as_administrator.get(f"{USERS}{service.pk}/{path}/")
        assert answer.status_code in {302, 404}, path  # Django goes back to the list with a message
        assert "group:staff" not in answer.content.decode()


def test_the_page_takes_as_many_queries_for_much_as_for_little(
    as_administrator: Client, user: User, django_assert_max_num_queries
):
    for number in range(20):
        make_key(user, f"key {number}")
        quota.top_up(user.wallet, 1)
    make_usage(50, user)
    with django_assert_max_num_queries(16):
        page(as_administrator, user)
