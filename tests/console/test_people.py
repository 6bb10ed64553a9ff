"""Users, balances, usage and ledger in the console."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts import quota
from accounts.models import ApiKey, Group, LedgerEntry, UsageRecord, User
from tests.console.conftest import PASSWORD, in_dialog, make_usage, person

USERS = "/admin/accounts/user/"
USAGE = "/admin/accounts/usagerecord/"


def act(client: Client, action: str, *people: User, **answers: str):
    data = {"action": action, "_selected_action": [user.pk for user in people], **answers}
    return client.post(USERS, data, follow=True)


def change(client: Client, user: User, **fields):
    data = {"username": user.username, "email": user.email, "role": user.role, "is_active": "on", "language": ""}
    return client.post(f"{USERS}{user.pk}/change/", {**data, **fields})


def test_a_new_user_gets_a_wallet_and_can_log_in(as_administrator: Client, settings):
    data = {"username": "cleo", "email": "", "password1": PASSWORD, "password2": PASSWORD, "role": "operator"}
    assert as_administrator.post(f"{USERS}add/", data).status_code == 302
    made = User.objects.get(username="cleo")
    assert (made.role, made.check_password(PASSWORD)) == ("operator", True)
    assert made.wallet.available == settings.DEFAULT_TOKENS * settings.TOKEN_PRICE


def test_the_role_is_one_choice(as_administrator: Client, user: User):
    assert change(as_administrator, user, role="admin").status_code == 302
    user.refresh_from_db()
    assert (user.is_staff, user.is_superuser) == (True, True)
    change(as_administrator, user, role="user")
    user.refresh_from_db()
    assert (user.is_staff, user.is_superuser) == (False, False)


def test_a_name_that_differs_in_case_only_is_refused(as_administrator: Client, user: User):
    other = person("carl")
    answer = change(as_administrator, other, username="BEN")
    assert answer.status_code == 200
    assert answer.context["errors"]


@pytest.mark.parametrize("fields", [{"role": "user"}, {"is_active": ""}])
def test_nobody_takes_their_own_access_away(as_administrator: Client, administrator: User, fields: dict):
    answer = change(as_administrator, administrator, **fields)
    assert "You cannot take your own access away" in answer.content.decode()
    administrator.refresh_from_db()
    assert (administrator.role, administrator.is_active) == ("admin", True)


def test_bulk_actions_leave_their_author_alone(as_administrator: Client, administrator: User, user: User):
    act(as_administrator, "deactivate", administrator, user, confirmed="yes")
    act(as_administrator, "make_operator", administrator, user, confirmed="yes")
    administrator.refresh_from_db()
    user.refresh_from_db()
    assert (administrator.is_active, administrator.role) == (True, "admin")
    assert (user.is_active, user.role) == (False, "operator")
    act(as_administrator, "activate", user)
    act(as_administrator, "make_user", user, confirmed="yes")
    user.refresh_from_db()
    assert (user.is_active, user.role) == (True, "user")


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("deactivate", "1 person blocked."),
        ("make_operator", "1 person is an operator now."),
        ("make_user", "1 person is an ordinary user now."),
    ],
)
def test_bulk_actions_that_take_or_give_rights_ask_first(
    as_administrator: Client, administrator: User, user: User, action: str, said: str
):
    User.objects.filter(pk=user.pk).update(is_staff=action == "make_user")
    before = User.objects.get(pk=user.pk)
    asked = act(as_administrator, action, administrator, user).content.decode()
    assert re.findall(r"<li>(\w+)</li>", asked.partition("c-names")[2].partition("</ul>")[0]) == ["ben"]
    after = User.objects.get(pk=user.pk)
    assert (after.role, after.is_active) == (before.role, before.is_active)
    assert said in act(as_administrator, action, administrator, user, confirmed="yes").content.decode()


def test_operators_cannot_change_people(as_operator: Client, user: User):
    assert act(as_operator, "make_operator", user).status_code == 403
    assert change(as_operator, user, role="admin").status_code == 403
    assert as_operator.post(f"{USERS}{user.pk}/password/", {}).status_code == 403
    assert as_operator.post(f"{USERS}{user.pk}/top_up/", {"credits": "5", "_form_submitted": "on"}).status_code == 403


def test_nobody_is_deleted(as_administrator: Client, user: User):
    assert as_administrator.post(f"{USERS}{user.pk}/delete/", {"post": "yes"}).status_code == 403
    assert "delete_selected" not in as_administrator.get(USERS).content.decode()
    assert User.objects.filter(pk=user.pk).exists()


def test_a_password_can_be_set(as_administrator: Client, user: User):
    answer = as_administrator.post(f"{USERS}{user.pk}/password/", {"password1": PASSWORD, "password2": PASSWORD})
    assert answer.status_code == 302
    user.refresh_from_db()
    assert user.check_password(PASSWORD)


def top_up(client: Client, user: User, **data):
    return in_dialog(client, f"{USERS}{user.pk}/top_up/", **data)


def test_top_up(as_administrator: Client, user: User):
    before = user.wallet.available
    answer = top_up(as_administrator, user, credits="12.5", note="thanks")
    assert answer["HX-Redirect"].endswith(f"{USERS}{user.pk}/change/")
    user.wallet.refresh_from_db()
    assert user.wallet.available == before + 12_500_000
    entry = LedgerEntry.objects.get(wallet=user.wallet, kind="topup")
    assert (entry.available_change, entry.note) == (12_500_000, "thanks")


@pytest.mark.parametrize("amount", ["", "0", "-1", "0.0000001", "many", "1e12"])
def test_a_wrong_amount_is_said_in_the_dialog(as_administrator: Client, user: User, amount: str):
    answer = top_up(as_administrator, user, credits=amount)
    assert "HX-Redirect" not in answer
    assert not LedgerEntry.objects.filter(kind="topup").exists()


def test_looking_at_the_dialog_changes_nothing(as_administrator: Client, user: User):
    answer = as_administrator.get(f"{USERS}{user.pk}/top_up/?credits=5&_form_submitted=on")
    assert user.username in answer.content.decode()
    assert not LedgerEntry.objects.filter(kind="topup").exists()


def test_top_up_needs_the_csrf_token(administrator: User, user: User):
    client = Client(enforce_csrf_checks=True)
    client.force_login(administrator)
    assert top_up(client, user, credits="5").status_code == 403
    assert not LedgerEntry.objects.filter(kind="topup").exists()


def test_user_list_takes_few_queries(as_administrator: Client, django_assert_max_num_queries: DjangoAssertNumQueries):
    for number in range(30):
        person(f"student{number}")
    with django_assert_max_num_queries(7):
        page = as_administrator.get(USERS).content.decode()
    assert "student29" in page


@pytest.mark.parametrize(
    "query", ["?role=user", "?role=operator", "?role=admin", "?is_active__exact=1", "?q=ada", "?q=%25%00"]
)
def test_user_filters(as_administrator: Client, user: User, query: str):
    answer = as_administrator.get(USERS + query, follow=True)
    assert answer.status_code == 200


# -- usage and ledger ----------------------------------------------------------------------------------------------


def shown(client: Client, query: str = "") -> list[UsageRecord]:
    return list(client.get(USAGE + query, follow=True).context["cl"].result_list)


def test_usage_is_found_by_request_user_model_outcome_and_time(as_operator: Client, user: User, operator: User):
    make_usage(3, user)
    make_usage(2, operator, model_name="other", outcome="failed")
    assert len(shown(as_operator)) == 5
    assert [record.request_id for record in shown(as_operator, "?q=req-1")] == ["req-1"]
    assert {record.username for record in shown(as_operator, "?q=BE")} == {"ben"}
    assert shown(as_operator, "?q=e") == []  # the beginning of a name, not any part of it
    assert {record.model_name for record in shown(as_operator, "?model=other")} == {"other"}
    assert len(shown(as_operator, "?outcome__exact=failed")) == 2
    assert len(shown(as_operator, "?since=1")) == 5
    key = ApiKey.objects.create(user=user, name="notebook", hash="h", prefix="sk-abcdef", last4="wxyz")
    group = Group.objects.create(name="Physics")
    make_usage(1, user, key=key)
    make_usage(1, operator, group=group)
    assert {record.key for record in shown(as_operator, f"?key={key.pk}")} == {key}
    assert {record.group for record in shown(as_operator, f"?group={group.pk}")} == {group}
    page = as_operator.get(USAGE).content.decode()
    assert "?model=tiny" in page or "tiny" in page


def test_long_tables_are_never_counted(as_administrator: Client, user: User, django_assert_max_num_queries):
    make_usage(120, user)
    for path, most in ((USAGE, 6), ("/admin/accounts/ledgerentry/", 3)):
        with django_assert_max_num_queries(most) as queries:
            page = as_administrator.get(path).content.decode()
        assert not [query for query in queries.captured_queries if "COUNT(" in query["sql"]]
        assert "9999999999" not in page
    assert len(shown(as_administrator)) == 50
    assert len(shown(as_administrator, "?p=3")) == 20


def test_ledger_shows_what_was_changed(as_administrator: Client, user: User):
    quota.adjust(user.wallet, -250_000, note="mistake")
    page = as_administrator.get("/admin/accounts/ledgerentry/?q=ben").content.decode()
    assert "−0.25" in page
    assert "mistake" in page
