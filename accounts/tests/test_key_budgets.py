"""Budgets of keys and prices of models, in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts import callers, keys, prices, quota
from accounts.ledger_checks import ledger_problems
from accounts.limits import Limit
from accounts.models import ApiKey, Hold, UsageRecord, Wallet
from accounts.prices import Price
from accounts.quota import BudgetUsedUp, Held, HoldRequest, InsufficientQuota, Settlement, UsageFigures

pytestmark = pytest.mark.django_db
PRICE = 1000
MONDAY = datetime(2026, 11, 16, 9, tzinfo=UTC)
TUESDAY = datetime(2026, 11, 17, 9, tzinfo=UTC)


@pytest.fixture
def now(monkeypatch) -> list[datetime]:
    time = [MONDAY]
    monkeypatch.setattr(timezone, "now", lambda: time[0])
    return time


@pytest.fixture
def key(user) -> ApiKey:
    return ApiKey.objects.create(user=user, name="k", hash="h", budget=100 * PRICE, budget_period="day")


def hold(name: str, key: ApiKey, prompt: int, most: int = 0, **more) -> Held:
    return quota.hold(HoldRequest(name, key.user.wallet.pk, "m", prompt, most, key_id=key.pk, **more))


def settle(name: str, key: ApiKey, prompt: int, answer: int = 0, cached: int = 0, **more) -> None:
    figures = UsageFigures(
        model_name="m", endpoint="e", status=200, outcome="completed",
        prompt_tokens=prompt, cached_tokens=cached, completion_tokens=answer,
    )  # fmt: skip
    quota.settle(Settlement(name, key.user.wallet.pk, figures, key_id=key.pk, **more))


def used(key: ApiKey) -> int:
    assert ledger_problems() == []
    key.refresh_from_db()
    return key.budget_used


def test_a_budget_bounds_what_its_key_holds_and_spends(key):
    assert hold("r1", key, 60, 100).max_tokens == 40
    with pytest.raises(BudgetUsedUp):
        hold("r2", key, 1)
    settle("r1", key, 60, 10)
    assert used(key) == 70 * PRICE
    assert hold("r2", key, 10, 100).max_tokens == 20


def test_the_smaller_of_budget_and_balance_counts(key):
    quota.adjust(key.user.wallet, -950 * PRICE)
    assert hold("r1", key, 20, 100).max_tokens == 30
    with pytest.raises(InsufficientQuota) as caught:
        hold("r2", key, 20)
    assert not isinstance(caught.value, BudgetUsedUp)


def test_other_keys_and_tokens_of_the_same_person_are_not_touched(key):
    other = ApiKey.objects.create(user=key.user, name="o", hash="o")
    hold("r1", key, 100)
    assert hold("r2", other, 300, 100).max_tokens == 100
    assert quota.hold(HoldRequest("r3", key.user.wallet.pk, "m", 200, 0)).amount == 200 * PRICE
    settle("r2", other, 300)
    assert used(key) == 100 * PRICE
    assert list(UsageRecord.objects.values_list("key_id", flat=True)) == [other.pk]


def test_released_holds_give_the_budget_back(key):
    hold("r1", key, 100)
    quota.release_many(["r1"])
    assert used(key) == 0
    hold("r2", key, 100)


def test_a_new_day_a_new_budget(key, now):
    hold("r1", key, 100)
    settle("r1", key, 100)
    now[0] = TUESDAY
    hold("r2", key, 90)
    assert used(key) == 90 * PRICE


def test_what_yesterday_held_neither_burdens_nor_feeds_today(key, now):
    hold("r1", key, 100)
    now[0] = TUESDAY
    hold("r2", key, 30)
    settle("r1", key, 50)
    assert used(key) == 30 * PRICE
    settle("r2", key, 10)
    assert used(key) == 10 * PRICE


def test_a_clock_turned_back_gives_nobody_yesterdays_budget(key, now):
    now[0] = TUESDAY
    hold("r1", key, 100)
    now[0] = MONDAY
    with pytest.raises(BudgetUsedUp):
        hold("r2", key, 1)


@pytest.mark.parametrize("period", ["day", "month", ""])
def test_a_clock_that_was_far_ahead_and_is_set_right_stops_no_budget(key, now, period):
    ApiKey.objects.update(budget_period=period)
    now[0] = datetime(2030, 1, 15, tzinfo=UTC)
    hold("r1", key, 40)
    hold("r2", key, 20)
    now[0] = MONDAY
    settle("r1", key, 30)
    assert hold("r3", key, 10, 100).max_tokens == 40, "what was used stays so"
    quota.release_many(["r2", "r3"])
    assert used(key) == 30 * PRICE
    now[0] = datetime(2026, 12, 2, tzinfo=UTC)
    assert hold("r4", key, 10, 100).max_tokens == (90 if period else 60)
    assert used(key) == 100 * PRICE


def test_a_budget_without_period_is_for_ever(key, now):
    ApiKey.objects.update(budget_period="")
    hold("r1", key, 100)
    settle("r1", key, 100)
    now[0] = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(BudgetUsedUp):
        hold("r2", key, 1)


def test_a_budget_holds_for_an_unlimited_account_too(key):
    quota.set_unlimited(key.user.wallet, True)
    assert hold("r1", key, 60, 100).max_tokens == 40
    with pytest.raises(BudgetUsedUp):
        hold("r2", key, 1)
    settle("r1", key, 60, 40)
    wallet = Wallet.objects.get(user=key.user)
    assert (used(key), wallet.available, wallet.held, wallet.spent) == (100 * PRICE, 1000 * PRICE, 0, 0)
    assert not Hold.objects.exists()


def test_many_requests_in_one_batch_share_the_budget(key):
    requests = [HoldRequest(f"r{n}", key.user.wallet.pk, "m", 30, 0, key_id=key.pk) for n in range(5)]
    results = quota.hold_many(requests)
    assert [type(result) for result in results] == [Held] * 3 + [BudgetUsedUp] * 2
    assert used(key) == 90 * PRICE


# -- rotated keys ----------------------------------------------------------------------------------------------------
def rotated(key: ApiKey, hours: int = 1) -> ApiKey:
    key.refresh_from_db()
    return keys.rotate_key(key, timedelta(hours=hours))[0]


def test_however_often_a_key_is_rotated_there_is_one_budget(key):
    hold("r1", key, 40)
    second = rotated(key)
    hold("r2", second, 20)
    third, beside = rotated(second), rotated(key)
    settle("r1", key, 30)
    assert hold("r3", third, 10, 100).max_tokens == 40
    for each in (key, second, third, beside):
        with pytest.raises(BudgetUsedUp):
            hold(f"late-{each.pk}", each, 1)
        each.refresh_from_db()
        assert each.holder.budget_used == 100 * PRICE
    quota.release_many(["r2", "r3"])
    assert used(key) == 30 * PRICE


def test_old_and_new_key_in_one_batch_share_the_budget(key):
    both = [key, rotated(key)]
    requests = [HoldRequest(f"r{n}", key.user.wallet.pk, "m", 30, 0, key_id=both[n % 2].pk) for n in range(5)]
    results = quota.hold_many(requests)
    assert [type(result) for result in results] == [Held] * 3 + [BudgetUsedUp] * 2
    assert used(key) == 90 * PRICE


def test_the_next_day_begins_for_both(key, now):
    new = rotated(key, 48)
    hold("r1", new, 100)
    now[0] = TUESDAY
    hold("r2", key, 60)
    settle("r1", new, 100)
    with pytest.raises(BudgetUsedUp):
        hold("r3", new, 41)
    assert used(key) == 60 * PRICE


def test_a_change_of_budget_or_limits_holds_for_old_and_new_key(key):
    new = rotated(key)
    keys.update_key(new, {"budget": 50 * PRICE, "requests_per_minute": 7, "name": "new"})
    key.refresh_from_db()
    assert (key.budget, key.requests_per_minute, key.name) == (50 * PRICE, 7, "k")
    hold("r1", key, 50)
    with pytest.raises(BudgetUsedUp):
        hold("r2", new, 1)
    assert callers.caller_of_key(key).limits == callers.caller_of_key(new).limits == (Limit(f"key:{key.pk}", 7),)


def test_keys_rotated_before_are_joined_by_the_migration(key):
    """There the new key had a copy of the old one's count, and went on by itself."""

    def older(name: str, **more) -> ApiKey:
        return ApiKey.objects.create(user=key.user, name=name, hash=name, **more)

    started = timezone.now()
    second = older("second", replaces=key, budget=5, budget_used=60, budget_started=started)
    third = older("third", replaces=second, budget=70, budget_used=65, budget_started=started)
    ApiKey.objects.filter(pk=key.pk).update(budget_used=90, budget_started=started - timedelta(days=1))
    import_module("accounts.migrations.0010_rotated_keys_share_a_budget").join_chains(apps, None)
    rows = ApiKey.objects.order_by("pk").values_list("root", "budget", "budget_used", "budget_started")
    assert list(rows) == [(None, 70, 65, started), (key.pk, 70, 0, None), (key.pk, 70, 0, None)]
    third.refresh_from_db()
    assert third.holder == key


# -- prices ----------------------------------------------------------------------------------------------------------


def test_prompt_cached_prompt_and_answer_have_prices_of_their_own(key):
    price = Price(10, 1, 100)
    assert hold("r1", key, 50, 20, price=price).amount == 50 * 10 + 20 * 100
    settle("r1", key, 40, answer=5, cached=30, price=price)
    assert UsageRecord.objects.get().cost == 10 * 10 + 30 * 1 + 5 * 100
    assert used(key) == 630


def test_a_free_answer_costs_the_prompt_only(key):
    assert hold("r1", key, 100, 10**6, price=Price(1000, 1000, 0)).max_tokens == 10**6
    with pytest.raises(BudgetUsedUp):
        hold("r2", key, 1, 5, price=Price(1000, 1000, 0))


def test_price_0_holds_nothing_and_is_recorded(key):
    quota.adjust(key.user.wallet, -1000 * PRICE)
    assert hold("r1", key, 10**6, 10**6, price=Price(0, 0, 0)).unlimited
    settle("r1", key, 10**6, 500, price=Price(0, 0, 0))
    record = UsageRecord.objects.get()
    assert (record.cost, record.prompt_tokens, used(key)) == (0, 10**6, 0)


def test_policies_are_what_was_set_and_token_rate_for_the_rest(settings):
    prices.set_policy("a", {"prompt_price": 5, "requests_per_minute": 7})
    prices.set_policy("a", {"completion_price": 0})
    prices.set_policy("b", {"cached_price": 2})
    settings.TOKEN_PRICE = 3
    found = prices.policies()
    assert found["a"] == prices.Policy(Price(5, 5, 0), Limit("model:a", 7))
    assert found["b"] == prices.Policy(Price(3, 2, 3))
    assert prices.default_policy().price == Price(3, 3, 3)


@pytest.mark.parametrize("changes", [{"prompt_price": -1}, {"cached_price": 10**10}, {"tokens_per_minute": None}])
def test_a_policy_that_cannot_be_is_refused(changes):
    with pytest.raises(ValidationError) as caught:
        prices.set_policy("a", changes)
    assert list(caught.value.message_dict) == list(changes)
    assert prices.policies() == {}
