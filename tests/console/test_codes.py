"""Redeem codes and invites in the console: made and shown once, listed, revoked."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import credits, invites
from accounts.models import Invite, RedeemBatch, RedeemCode, User
from tests.console.conftest import in_dialog, logged_in, make_group, once

BATCHES = "/admin/accounts/redeembatch/"
CODES = "/admin/accounts/redeemcode/"
INVITES = "/admin/accounts/invite/"
BATCH = {"name": "Open day", "count": "3", "credits": "2.5"}


def make(client: Client, **fields):
    return client.post(f"{BATCHES}add/", {**BATCH, "once": once(), **fields})


def codes_in(answer) -> list[str]:
    found = re.search(r'<textarea id="codes"[^>]*>(.*?)</textarea>', answer.content.decode(), re.DOTALL)
    assert found is not None
    return found[1].split()


def test_codes_are_shown_once_and_work(as_administrator: Client, administrator: User, user: User):
    answer = make(as_administrator, credit_days="90")
    assert "no-store" in answer["Cache-Control"]
    codes = codes_in(answer)
    batch = RedeemBatch.objects.get()
    assert len(set(codes)) == 3
    assert (batch.amount, batch.credit_days, batch.created_by) == (2_500_000, 90, administrator)
    assert credits.redeem(user, codes[0]).available_change == 2_500_000
    for path in (BATCHES, f"{BATCHES}{batch.pk}/change/", f"{CODES}?batch={batch.pk}"):
        page = as_administrator.get(path).content.decode()
        assert not any(code in page for code in codes)


def test_sending_the_form_twice_makes_one_batch(as_administrator: Client):
    nonce = once()
    codes_in(make(as_administrator, once=nonce))
    assert make(as_administrator, once=nonce)["Location"] == BATCHES
    assert RedeemCode.objects.count() == 3


def test_the_page_gives_its_codes_as_a_file(as_administrator: Client):
    codes = codes_in(make(as_administrator))
    path = f"{BATCHES}{RedeemBatch.objects.get().pk}/codes.csv"
    answer = as_administrator.post(path, {"codes": "\r\n".join(codes)})
    assert "no-store" in answer["Cache-Control"]
    assert answer["Content-Disposition"].startswith("attachment")
    lines = answer.content.decode("utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in lines] == ["code", *codes]
    assert lines[1].split(",")[1] == "2.500000"
    assert as_administrator.get(path).status_code == 405
    assert "=" not in as_administrator.post(path, {"codes": "=cmd|' /C calc'!A0"}).content.decode()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, "name"),
        ({"count": "0"}, "count"),
        ({"count": "10001"}, "count"),
        ({"credits": "0"}, "credits"),
        ({"credits": "x"}, "credits"),
        ({"expires_at": "2001-01-01T00:00"}, "expires_at"),
        ({"credit_days": "0"}, "credit_days"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(as_administrator: Client, fields: dict, wrong: str):
    answer = make(as_administrator, **fields)
    assert list(answer.context["form"].errors) == [wrong]
    assert not RedeemBatch.objects.exists()


def test_a_list_says_what_is_used_and_left_and_by_whom(
    as_administrator: Client, user: User, django_assert_max_num_queries
):
    codes = codes_in(make(as_administrator))
    credits.redeem(user, codes[1])
    batch = RedeemBatch.objects.get()
    row = as_administrator.get(BATCHES).context["cl"].result_list[0]
    admin = as_administrator.get(BATCHES).context["cl"].model_admin
    assert (admin.used(row), admin.left(row)) == ("1", "2")
    page = as_administrator.get(f"{BATCHES}{batch.pk}/change/").content.decode()
    assert f"…{codes[1][-4:]}" in page
    assert "ben" in page
    with django_assert_max_num_queries(4):
        listed = as_administrator.get(f"{CODES}?batch={batch.pk}").content.decode()
    assert "ben" in listed
    assert [code.last4 for code in as_administrator.get(f"{CODES}?q=be").context["cl"].result_list] == [codes[1][-4:]]
    assert len(as_administrator.get(f"{CODES}?used=no").context["cl"].result_list) == 2
    assert list(as_administrator.get(f"{CODES}?batch=x").context["cl"].result_list) == []


def test_revoking_a_batch(as_administrator: Client, user: User):
    codes = codes_in(make(as_administrator))
    batch = RedeemBatch.objects.get()
    in_dialog(as_administrator, f"{BATCHES}{batch.pk}/revoke/")
    with pytest.raises(credits.CodeRefused):
        credits.redeem(user, codes[0])
    assert "revoke/" not in as_administrator.get(f"{BATCHES}{batch.pk}/change/").content.decode()


# -- invites -------------------------------------------------------------------------------------------------------


def invite(client: Client, **fields):
    return client.post(f"{INVITES}add/", {"once": once(), "uses": "1", "note": "for Ben", **fields})


def link_in(answer) -> str:
    found = re.search(r'id="secret"[^>]*>([^<]+)<', answer.content.decode())
    assert found is not None
    return found[1]


def test_an_invite_is_a_link_that_is_shown_once(as_administrator: Client, settings):
    settings.REGISTRATION = "closed"
    group = make_group()
    until = timezone.localtime(timezone.now() + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M")
    answer = invite(as_administrator, group=group.pk, uses="2", expires_at=until)
    assert "no-store" in answer["Cache-Control"]
    link = link_in(answer)
    assert link.startswith("http://testserver/register?invite=")
    made = Invite.objects.get()
    assert (made.group, made.uses_left, made.note) == (group, 2, "for Ben")
    assert Client().get(link.removeprefix("http://testserver")).status_code == 200
    page = as_administrator.get(INVITES).content.decode()
    assert link.split("=")[1] not in page
    assert f"…{made.last4}" in page


def test_behind_a_proxy_the_link_is_the_public_one(as_administrator: Client, settings):
    settings.PUBLIC_URL = "https://llm.example.com"
    assert link_in(invite(as_administrator)).startswith("https://llm.example.com/register?invite=")


def test_an_invite_is_made_once_and_revoked(as_administrator: Client):
    nonce = once()
    code = link_in(invite(as_administrator, once=nonce)).split("=")[1]
    invite(as_administrator, once=nonce)
    made = Invite.objects.get()
    in_dialog(as_administrator, f"{INVITES}{made.pk}/revoke/")
    assert not invites.is_open(code)
    assert "used up or revoked" in as_administrator.get(INVITES).content.decode()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"uses": "0"}, "uses"),
        ({"uses": "10001"}, "uses"),
        ({"group": "999"}, "group"),
        ({"expires_at": "2001-01-01T00:00"}, "expires_at"),
    ],
)
def test_a_wrong_invite(as_administrator: Client, fields: dict, wrong: str):
    assert list(invite(as_administrator, **fields).context["form"].errors) == [wrong]
    assert not Invite.objects.exists()


def test_operators_make_neither(operator: User):
    client = logged_in(operator)
    assert make(client).status_code == 403
    assert invite(client).status_code == 403
    assert not RedeemBatch.objects.exists()
    assert not Invite.objects.exists()
