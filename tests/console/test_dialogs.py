"""What asks before it acts: in a window, as a page of its own, for many rows; and forms that take effect once."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts.models import ApiKey, LedgerEntry, User
from tests.console.conftest import in_dialog, make_key, make_model, once

USERS = "/admin/accounts/user/"
HTMX = {"HX-Request": "true"}


def test_in_a_window_it_is_a_fragment_and_else_a_page(as_administrator: Client, user: User):
    path = f"{USERS}{user.pk}/top_up/"
    fragment = as_administrator.get(path, headers=HTMX).content.decode()
    assert "<html" not in fragment
    assert 'id="dialog"' in fragment
    whole = as_administrator.get(path).content.decode()
    assert "<html" in whole
    assert "Ledger" in whole  # the menu
    assert user.username in whole
    assert "hx-post" not in whole.split('id="content-main"')[1]


def test_the_page_acts_and_goes_back_to_where_it_is_about(as_administrator: Client, user: User):
    path = f"{USERS}{user.pk}/top_up/"
    data = {"_form_submitted": "on", "once": once(), "credits": "2"}
    answer = as_administrator.post(path, data, headers={"Referer": f"http://testserver{path}"})
    assert answer["Location"] == f"{USERS}{user.pk}/change/"
    answer = as_administrator.post(
        path, {**data, "once": once()}, headers={"Referer": "https://elsewhere.example/admin/"}
    )
    assert answer["Location"] == f"{USERS}{user.pk}/change/"
    answer = as_administrator.post(path, {**data, "once": once()}, headers={"Referer": f"http://testserver{USERS}?p=2"})
    assert answer["Location"] == f"http://testserver{USERS}?p=2"
    assert LedgerEntry.objects.filter(kind="topup").count() == 3


def test_what_is_wrong_is_said_on_the_page(as_administrator: Client, user: User):
    data = {"_form_submitted": "on", "once": once(), "credits": "-5"}
    answer = as_administrator.post(f"{USERS}{user.pk}/top_up/", data)
    assert answer.status_code == 200
    assert "greater than or equal to" in answer.content.decode()


@pytest.mark.parametrize("row", ["999999", "abc", "0", "9" * 30, "1%00"])
def test_a_row_that_is_not_there(as_administrator: Client, row: str):
    assert as_administrator.get(f"{USERS}{row}/top_up/").status_code == 404
    assert in_dialog(as_administrator, f"{USERS}{row}/top_up/", credits="1").status_code == 404


def test_every_dialog_opens_as_a_page_of_its_own(as_administrator: Client, user: User, machine):
    model, key = make_model("tiny"), make_key(user)
    paths = [
        *(f"accounts/user/{user.pk}/{name}" for name in ("top_up", "correct", "set_allowance", "unlimited_or_not")),
        *(f"accounts/user/{user.pk}/{name}" for name in ("approve", "refuse", "block", "unblock")),
        *(f"accounts/wallet/{user.wallet.pk}/{name}" for name in ("top_up", "correct", "set_allowance")),
        *(f"accounts/apikey/{key.pk}/{name}" for name in ("rotate", "revoke", "change_rules")),
        *(f"models_app/modelconfig/{model.pk}/{name}" for name in ("start", "stop", "restart", "go_back")),
        *(f"cluster/node/{machine.pk}/{name}" for name in ("drain", "resume")),
    ]
    for path in paths:
        answer = as_administrator.get(f"/admin/{path}/")
        assert answer.status_code == 200, path
        assert "<html" in answer.content.decode(), path
    user.refresh_from_db()
    assert user.is_active
    assert ApiKey.objects.get().revoked_at is None


# -- once ------------------------------------------------------------------------------------------------------------


def test_a_form_sent_twice_takes_effect_once(as_administrator: Client, user: User):
    nonce = once()
    for _click in range(2):
        answer = in_dialog(as_administrator, f"{USERS}{user.pk}/top_up/", credits="5", once=nonce)
        assert answer["HX-Redirect"]
    assert LedgerEntry.objects.filter(kind="topup").count() == 1
    said = as_administrator.get(USERS).content.decode()
    assert "nothing was done a second time" in said


def test_a_form_that_could_not_be_done_may_be_sent_again(as_administrator: Client, user: User):
    nonce, path = once(), f"{USERS}{user.pk}/correct/"
    refused = in_dialog(as_administrator, path, credits="-1000000", note="mistake", once=nonce)
    assert "credits are available" in refused.content.decode()
    in_dialog(as_administrator, path, credits="-0.5", note="mistake", once=nonce)
    assert LedgerEntry.objects.get(kind="adjust").available_change == -500_000


def test_a_form_without_its_number_does_nothing(as_administrator: Client, user: User):
    in_dialog(as_administrator, f"{USERS}{user.pk}/top_up/", credits="5", once="")
    assert not LedgerEntry.objects.filter(kind="topup").exists()


def test_each_opened_form_has_a_number_of_its_own(as_administrator: Client, user: User):
    path = f"{USERS}{user.pk}/top_up/"
    one, other = (as_administrator.get(path).context["form"]["once"].value() for _time in range(2))
    assert one != other
