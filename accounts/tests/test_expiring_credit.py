"""Credit with an end: lots and allowances, told from outside by balances and the ledger."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import credits, lots, quota, sweeps
from accounts.ledger_checks import ledger_problems
from accounts.models import CreditLot, Group, LedgerEntry, Period, Wallet
from accounts.quota import HoldRequest, Settlement, UsageFigures

pytestmark = pytest.mark.django_db
PRICE = 1000
START = 1000 * PRICE
Kind = LedgerEntry.Kind


@pytest.fixture
def wallet(make_user) -> Wallet:
    return make_user().wallet


def days(number: int) -> datetime:
    return timezone.now() + timedelta(days=number)


def available(wallet: Wallet) -> int:
    assert ledger_problems() == []
    return Wallet.objects.get(pk=wallet.pk).available


def hold(wallet: Wallet, name: str, tokens: int) -> None:
    quota.hold(HoldRequest(name, wallet.pk, "m", tokens, 0))


def settle(wallet: Wallet, name: str, tokens: int) -> None:
    figures = UsageFigures(
        model_name="m", endpoint="e", status=200, outcome="completed", prompt_tokens=tokens, completion_tokens=0
    )
    quota.settle(Settlement(name, wallet.pk, figures))


def spend(wallet: Wallet, name: str, tokens: int) -> None:
    hold(wallet, name, tokens)
    settle(wallet, name, tokens)


def test_what_is_not_used_in_time_goes(wallet):
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    assert credits.expire_lots() == 0
    spend(wallet, "r1", 30)
    assert credits.expire_lots(days(2)) == 70 * PRICE
    assert available(wallet) == START
    assert credits.expire_lots(days(3)) == 0


def test_spending_draws_on_what_expires_soonest_whenever_it_was_given(wallet):
    quota.top_up(wallet, 100 * PRICE, expires_at=days(20))
    quota.top_up(wallet, 100 * PRICE, expires_at=days(10))
    spend(wallet, "r1", 130)
    assert credits.expire_lots(days(11)) == 0
    assert credits.expire_lots(days(21)) == 70 * PRICE
    assert available(wallet) == START


def test_credit_without_end_is_used_last_and_never_expires(wallet):
    quota.top_up(wallet, 10 * PRICE, expires_at=days(1))
    spend(wallet, "r1", 25)
    assert credits.expire_lots(days(2)) == 0
    assert available(wallet) == START - 15 * PRICE


def test_what_was_spent_before_a_lot_began_is_not_taken_from_it(wallet):
    spend(wallet, "r1", 500)
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    assert credits.expire_lots(days(2)) == 100 * PRICE


def test_what_a_running_request_holds_expires_when_it_comes_free(wallet):
    quota.adjust(wallet, -START)
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    hold(wallet, "r1", 80)
    assert credits.expire_lots(days(2)) == 20 * PRICE
    settle(wallet, "r1", 50)
    assert available(wallet) == 30 * PRICE
    assert credits.expire_lots(days(2)) == 30 * PRICE
    assert available(wallet) == 0


def test_what_is_held_of_it_is_not_taken_from_other_money(wallet):
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    hold(wallet, "r1", 80)
    assert credits.expire_lots(days(2)) == 20 * PRICE
    settle(wallet, "r1", 80)
    assert credits.expire_lots(days(2)) == 0
    assert available(wallet) == START


def test_a_correction_down_takes_what_lasts_longest_first_and_expiry_never_overdraws(wallet):
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    quota.adjust(wallet, -START - 60 * PRICE)
    assert credits.expire_lots(days(2)) == 40 * PRICE
    assert available(wallet) == 0


def test_what_a_correction_took_from_a_lot_is_not_taken_again_from_later_credit(wallet):
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    quota.adjust(wallet, -START - 60 * PRICE)
    quota.top_up(wallet, 500 * PRICE)
    assert credits.expire_lots(days(2)) == 40 * PRICE
    assert available(wallet) == 500 * PRICE


def test_two_sweeps_expire_once(wallet):
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    later = days(2)
    assert [credits.expire_lots(later), credits.expire_lots(later)] == [100 * PRICE, 0]
    assert LedgerEntry.objects.filter(kind=Kind.EXPIRE).count() == 1


def test_credit_that_is_over_cannot_be_spent_though_no_sweep_has_run(wallet, monkeypatch):
    quota.adjust(wallet, -START)
    for number in (3, 1, 2):
        quota.top_up(wallet, 100 * PRICE, expires_at=days(number))
    hold(wallet, "r1", 80)
    later = days(1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    with pytest.raises(quota.InsufficientQuota):
        hold(wallet, "r2", 201)
    assert available(wallet) == 200 * PRICE
    quota.release_many(["r1"])
    hold(wallet, "r3", 200)
    assert available(wallet) == 0, "what the first one held is over, too"
    quota.release_many(["r3"])
    much_later = days(9)
    monkeypatch.setattr(timezone, "now", lambda: much_later)
    with pytest.raises(quota.InsufficientQuota):
        hold(wallet, "r4", 1)
    wallet.refresh_from_db()
    assert (available(wallet), wallet.lots_end) == (0, None)


def test_credit_that_has_an_end_costs_a_hold_no_query(wallet, make_user):
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    counts = []
    for each in (wallet, make_user().wallet):
        with CaptureQueriesContext(connection) as run:
            hold(each, f"r{each.pk}", 10)
        counts.append(len(run))
    assert counts[0] == counts[1]


def test_the_proof_finds_a_balance_that_does_not_know_when_its_credit_ends(wallet):
    quota.top_up(wallet, 100 * PRICE, expires_at=days(1))
    for wrong in (None, days(2)):
        Wallet.objects.filter(pk=wallet.pk).update(lots_end=wrong)
        assert len(ledger_problems()) == 1
    import_module("accounts.migrations.0012_fill_when_credit_ends").fill(apps, connection.schema_editor())
    assert ledger_problems() == []


# -- allowances ------------------------------------------------------------------------------------------------------
MIDDLE = datetime(2026, 11, 17, 12, tzinfo=UTC)
NEXT = datetime(2026, 12, 2, 12, tzinfo=UTC)


@pytest.fixture
def november(monkeypatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: MIDDLE)


@pytest.mark.usefixtures("november")
def test_an_allowance_comes_at_once_and_begins_anew_with_the_month(wallet):
    credits.set_allowance(wallet, 50 * PRICE, Period.MONTH)
    assert available(wallet) == START + 50 * PRICE
    assert credits.give_allowances() == 0
    spend(wallet, "r1", 20)
    assert credits.give_allowances(NEXT) == 1
    assert available(wallet) == START + 50 * PRICE  # the 30 that were left are gone
    entries = LedgerEntry.objects.filter(wallet=wallet, kind__in=[Kind.EXPIRE, Kind.GRANT]).order_by("pk")
    assert [entry.available_change for entry in entries] == [START, 50 * PRICE, -30 * PRICE, 50 * PRICE]


@pytest.mark.usefixtures("november")
def test_the_sweep_may_run_twice_or_late_or_after_the_clock_was_turned_back(wallet):
    credits.set_allowance(wallet, 50 * PRICE, Period.MONTH)
    credits.give_allowances(NEXT)
    for at in (NEXT, MIDDLE, NEXT, datetime(2026, 12, 31, tzinfo=UTC)):
        Wallet.objects.filter(pk=wallet.pk).update(allowance_due=at)
        credits.expire_lots(at)
        credits.give_allowances(at)
    assert LedgerEntry.objects.filter(kind=Kind.GRANT, note="allowance").count() == 2
    assert available(wallet) == START + 50 * PRICE


@pytest.mark.usefixtures("november")
def test_a_month_in_which_nothing_ran_gives_one_allowance_not_two(wallet):
    credits.set_allowance(wallet, 50 * PRICE, Period.MONTH)
    assert credits.give_allowances(datetime(2027, 2, 3, tzinfo=UTC)) == 1
    assert available(wallet) == START + 50 * PRICE


@pytest.mark.usefixtures("november")
def test_members_have_their_groups_allowance_unless_they_have_their_own(make_user):
    group = Group.objects.create(name="Physics")
    users = [make_user(group=group) for _number in range(3)]
    credits.set_allowance(users[1].wallet, 7 * PRICE, Period.DAY)
    credits.set_allowance(users[2].wallet, 0)
    credits.set_group_allowance(group, 50 * PRICE, Period.WEEK)
    assert [available(user.wallet) - START for user in users] == [50 * PRICE, 7 * PRICE, 0]
    due = [Wallet.objects.get(user=user).allowance_due for user in users]
    assert [at and timezone.localtime(at).date().isoformat() for at in due] == ["2026-11-23", "2026-11-18", None]


@pytest.mark.usefixtures("november")
def test_an_allowance_that_is_taken_away_ends_with_its_period(wallet):
    credits.set_allowance(wallet, 50 * PRICE)
    credits.set_allowance(wallet, None)
    assert available(wallet) == START + 50 * PRICE
    assert credits.give_allowances(NEXT) == 0
    credits.expire_lots(NEXT)
    assert available(wallet) == START


@pytest.mark.usefixtures("november")
@pytest.mark.parametrize("of_group", [False, True])
def test_a_clock_that_was_far_ahead_and_is_set_right_stops_no_allowance(make_user, of_group):
    group = Group.objects.create(name="Physics") if of_group else None
    wallet = make_user(group=group).wallet
    if group:
        credits.set_group_allowance(group, 50 * PRICE)
    else:
        credits.set_allowance(wallet, 50 * PRICE)
    assert credits.give_allowances(datetime(2030, 1, 15, tzinfo=UTC)) == 1
    assert credits.give_allowances() == 0, "November's was given"
    wallet.refresh_from_db()
    assert wallet.allowance_due == datetime(2026, 12, 1, tzinfo=UTC)
    assert credits.give_allowances(NEXT) == 1
    assert ledger_problems() == []


def test_a_months_allowance_is_another_one_than_that_of_its_first_day(wallet, monkeypatch):
    monkeypatch.setattr(timezone, "now", lambda: datetime(2026, 11, 1, 12, tzinfo=UTC))
    credits.set_allowance(wallet, 5 * PRICE, Period.DAY)
    for _twice in range(2):
        credits.set_allowance(wallet, 50 * PRICE, Period.MONTH)
        assert available(wallet) == START + 55 * PRICE
    credits.set_allowance(wallet, 5 * PRICE, Period.DAY)
    assert available(wallet) == START + 55 * PRICE


@pytest.mark.usefixtures("november")
def test_a_sweep_does_what_it_can_in_its_time_and_the_next_call_goes_on(make_user, monkeypatch):
    wallets = [make_user().wallet for _number in range(3)]
    for wallet in wallets:
        credits.set_allowance(wallet, 50 * PRICE)
    assert credits.give_allowances(NEXT, seconds=0) == 0
    assert credits.expire_lots(NEXT, seconds=0) == 0
    ticks = itertools.count(0.0, 0.3)  # begins, looks, looks: two wallets in half a second
    monkeypatch.setattr(credits, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    assert [credits.give_allowances(NEXT, seconds=0.5) for _call in range(4)] == [1, 1, 1, 0]


@pytest.mark.usefixtures("november")
def test_a_wallet_that_fails_stops_none_of_those_behind_it(make_user, monkeypatch, caplog):
    wallets = [make_user().wallet for _number in range(3)]
    for wallet in wallets:
        credits.set_allowance(wallet, 50 * PRICE)
    real = lots.expire

    def expire(batch, wallet, now):
        if wallet.pk == wallets[0].pk:
            raise ValueError("broken")
        return real(batch, wallet, now)

    monkeypatch.setattr(lots, "expire", expire)
    assert credits.expire_lots(NEXT, seconds=60) == 2 * 50 * PRICE
    assert credits.give_allowances(NEXT, seconds=60) == 2
    assert [record.getMessage() for record in caplog.records] == [f"wallet {wallets[0].pk} was left as it is"] * 2
    monkeypatch.undo()
    monkeypatch.setattr(timezone, "now", lambda: NEXT)
    assert credits.give_allowances(NEXT) == 1


@pytest.mark.usefixtures("november")
def test_the_sweeps_say_when_there_is_more_to_do(wallet, monkeypatch):
    credits.set_allowance(wallet, 50 * PRICE)
    monkeypatch.setattr(credits, "SECONDS", 1000.0)
    assert not sweeps.run()
    monkeypatch.setattr(credits, "SECONDS", 0.0)
    assert sweeps.run()


@pytest.mark.parametrize(("amount", "period"), [(-1, "month"), (10**15 + 1, "month"), (5, "year")])
def test_an_allowance_that_cannot_be_is_refused(wallet, amount, period):
    with pytest.raises(ValidationError):
        credits.set_allowance(wallet, amount, period)
    assert not CreditLot.objects.exists()


def test_a_new_account_starts_with_what_its_group_gives(make_user, settings):
    settings.DEFAULT_TOKENS = 5
    group = Group.objects.create(name="Physics", starting_balance=77, allowance=PRICE)
    user = make_user()
    other = type(user)(username="late", group=group)
    other.save()
    quota.open_wallet(other)
    credits.give_allowances()
    assert available(user.wallet) == 5 * PRICE
    assert available(other.wallet) == 77 + PRICE
