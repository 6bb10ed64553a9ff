"""Redeem codes, and credit for many people at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts import credits
from accounts.credits import CodeRefused, CreditRow
from accounts.ledger_checks import ledger_problems
from accounts.models import LedgerEntry, RedeemBatch, RedeemCode, Wallet

pytestmark = pytest.mark.django_db
START = 1000 * 1000


def available(user) -> int:
    assert ledger_problems() == []
    return Wallet.objects.get(user=user).available


def made(**kwargs) -> tuple[RedeemBatch, str]:
    batch, [code] = credits.make_codes("Term", 1, 5000, **kwargs)
    return batch, code


def refusal(user, code: str) -> str:
    with pytest.raises(CodeRefused) as caught:
        credits.redeem(user, code)
    assert caught.value.message()
    return caught.value.reason


def test_a_code_is_worth_its_amount_once(user, make_user):
    _batch, code = made()
    entry = credits.redeem(user, code)
    assert (entry.kind, entry.available_change, entry.note) == ("redeem", 5000, "Term")
    assert available(user) == START + 5000
    assert [refusal(user, code), refusal(make_user(), code)] == ["used", "used"]
    assert available(user) == START + 5000


def test_however_it_is_typed(user):
    _batch, codes = credits.make_codes("Term", 3, 10)
    for code, typed in zip(
        codes, (str.lower, lambda c: c.replace("-", " "), lambda c: f" {c.replace('0', 'o')}\n"), strict=True
    ):
        credits.redeem(user, typed(code))
    assert available(user) == START + 30


def test_codes_are_all_different_and_kept_nowhere(user):
    batch, codes = credits.make_codes("Term", 200, 10, by=user)
    assert len(set(codes)) == 200
    assert batch.codes.count() == 200
    kept = " ".join(str(value) for row in RedeemCode.objects.values_list() for value in row)
    assert not any(code in kept or code.replace("-", "") in kept for code in codes)


@pytest.mark.parametrize("code", ["", "nothing", "\x00", "x" * 100_000, "漢字", "00000-00000-00000-00000"])
def test_what_is_no_code(user, code):
    made()
    assert refusal(user, code) == "unknown"
    assert available(user) == START


def test_after_its_time_or_when_the_batch_is_revoked(user, monkeypatch):
    _batch, late = made(expires_at=timezone.now() + timedelta(hours=1))
    batch, revoked = made()
    _batch, good = made()
    credits.revoke_codes(batch)
    assert refusal(user, revoked) == "unknown"
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now + timedelta(hours=2))
    assert refusal(user, late) == "expired"
    credits.redeem(user, good)


def test_credit_that_lasts_some_days(user):
    _batch, code = made(credit_days=30)
    credits.redeem(user, code)
    assert credits.expire_lots(timezone.now() + timedelta(days=31)) == 5000
    assert available(user) == START


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("count", {"count": 0}),
        ("count", {"count": 10_001}),
        ("amount", {"amount": 0}),
        ("amount", {"amount": 10**15 + 1}),
        ("expires_at", {"expires_at": timezone.now() - timedelta(days=1)}),
        ("credit_days", {"credit_days": 0}),
    ],
)
def test_a_batch_that_cannot_be(field, arguments):
    with pytest.raises(ValidationError) as caught:
        credits.make_codes(**{"name": "x", "count": 1, "amount": 1, **arguments})
    assert list(caught.value.message_dict) == [field]
    assert not RedeemBatch.objects.exists()


# -- many at once ----------------------------------------------------------------------------------------------------


def test_five_hundred_people_get_theirs_in_one_go_and_once(make_user):
    users = [make_user() for _number in range(500)]
    rows = [CreditRow(user.username.upper(), 100 + number, "term") for number, user in enumerate(users)]
    assert credits.top_up_many(rows, batch="b1")
    assert not credits.top_up_many(rows, batch="b1")
    assert [available(users[0]), Wallet.objects.get(user=users[499]).available] == [START + 100, START + 599]
    assert LedgerEntry.objects.filter(kind="topup").count() == 500


def test_somebody_named_twice_gets_both(user):
    assert credits.top_up_many([CreditRow("bob", 10), CreditRow("bob", 5)], batch="b1")
    assert available(user) == START + 15


def test_one_wrong_row_and_nobody_gets_anything(user):
    rows = [CreditRow("bob", 10), CreditRow("nobody", 10), CreditRow("bob", 0), CreditRow("bob", 10**16)]
    with pytest.raises(ValidationError) as caught:
        credits.top_up_many(rows, batch="b1")
    assert len(caught.value.message_dict["rows"]) == 3
    assert available(user) == START


def test_no_rows():
    with pytest.raises(ValidationError):
        credits.top_up_many([], batch="b1")
