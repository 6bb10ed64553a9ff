"""The ledger's promises, one by one. What happens when many do it at once is in test_quota_race.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import quota
from accounts.ledger_checks import ledger_problems
from accounts.models import Hold, LedgerEntry, UsageRecord, User, Wallet
from accounts.quota import Held, HoldRequest, InsufficientQuota, RequestIdUsed, Settlement, UsageFigures
from llmplatform.lib import process_identity

pytestmark = pytest.mark.django_db
PRICE = 1000
START = 1000 * PRICE


def asked(request_id: str, wallet: Wallet, prompt: int = 10, most: int = 20) -> HoldRequest:
    return HoldRequest(request_id, wallet.pk, "m", prompt, most)


def used(request_id: str, wallet: Wallet, prompt: int = 0, answer: int = 0, **more: object) -> Settlement:
    figures = UsageFigures(
        model_name="m",
        endpoint="chat.completions",
        status=200,
        outcome="completed",
        prompt_tokens=prompt,
        completion_tokens=answer,
        **more,  # type: ignore[arg-type]
    )
    return Settlement(request_id, wallet.pk, figures)


def balance(wallet: Wallet) -> tuple[int, int]:
    wallet.refresh_from_db()
    return wallet.available, wallet.held


@pytest.fixture
def wallet(user: User) -> Wallet:
    return user.wallet


@pytest.fixture(autouse=True)
def _ledger_is_right_afterwards(db: None):
    yield
    assert ledger_problems() == []


def test_a_new_account_has_its_first_credit_as_a_grant(wallet: Wallet) -> None:
    assert balance(wallet) == (START, 0)
    [entry] = wallet.entries.all()
    assert (entry.kind, entry.available_change) == ("grant", START)


def test_hold_then_settle_charges_what_was_used_and_gives_back_the_rest(wallet: Wallet) -> None:
    held = quota.hold(asked("r1", wallet, prompt=10, most=20))
    assert held == Held("r1", 30 * PRICE, 20, False)
    assert balance(wallet) == (START - 30 * PRICE, 30 * PRICE)
    quota.settle(used("r1", wallet, prompt=8, answer=5, replica="m/1", queue_ms=7, tokens_per_second=12.5))
    assert balance(wallet) == (START - 13 * PRICE, 0)
    record = UsageRecord.objects.get()
    assert (record.request_id, record.cost, record.username, record.replica) == ("r1", 13 * PRICE, "bob", "m/1")
    assert [entry.kind for entry in wallet.entries.all()] == ["settle", "hold", "grant"]
    assert not Hold.objects.exists()


def test_generation_is_capped_to_what_the_balance_affords(wallet: Wallet) -> None:
    assert quota.hold(asked("r1", wallet, prompt=990, most=500)).max_tokens == 10
    assert balance(wallet) == (0, START)


def test_a_balance_that_pays_prompt_and_one_token_is_enough_and_less_is_not(wallet: Wallet) -> None:
    with pytest.raises(InsufficientQuota):
        quota.hold(asked("r1", wallet, prompt=1000, most=1))
    assert quota.hold(asked("r2", wallet, prompt=999, most=50)).max_tokens == 1


def test_an_embedding_generates_nothing_and_needs_the_prompt_only(wallet: Wallet) -> None:
    assert quota.hold(asked("r1", wallet, prompt=1000, most=0)).max_tokens == 0


def test_one_batch_cannot_spend_more_than_there_is(wallet: Wallet) -> None:
    results = quota.hold_many([asked(f"r{number}", wallet, prompt=100, most=200) for number in range(10)])
    assert [type(result) for result in results] == [Held] * 3 + [InsufficientQuota] * 7
    assert balance(wallet) == (100 * PRICE, 900 * PRICE)


def test_two_wallets_in_one_batch_do_not_touch_each_other(wallet: Wallet, make_user) -> None:
    other = make_user().wallet
    quota.hold_many([asked("r1", wallet), asked("r2", other, prompt=1), asked("r3", wallet)])
    assert balance(wallet)[1] == 60 * PRICE
    assert balance(other)[1] == 21 * PRICE
    quota.settle_many([used("r1", wallet, 1), used("r2", other, 2), used("r3", wallet, 3)])
    assert balance(wallet) == (START - 4 * PRICE, 0)
    assert balance(other) == (START - 2 * PRICE, 0)


def test_holding_twice_holds_once(wallet: Wallet) -> None:
    first = quota.hold(asked("r1", wallet))
    assert quota.hold(asked("r1", wallet)) == first
    assert quota.hold_many([asked("r2", wallet), asked("r2", wallet)])[0] == Held("r2", 30 * PRICE, 20, False)
    assert balance(wallet)[1] == 60 * PRICE


def test_settling_twice_charges_once(wallet: Wallet) -> None:
    quota.hold(asked("r1", wallet))
    quota.settle_many([used("r1", wallet, 5), used("r1", wallet, 5)])
    quota.settle(used("r1", wallet, 9))
    assert balance(wallet) == (START - 5 * PRICE, 0)
    assert UsageRecord.objects.count() == 1


def test_a_finished_request_may_not_run_again_under_its_id(wallet: Wallet) -> None:
    quota.hold(asked("r1", wallet))
    quota.settle(used("r1", wallet, 5))
    with pytest.raises(RequestIdUsed):
        quota.hold(asked("r1", wallet))


def test_another_wallet_cannot_use_a_request_id_that_is_taken(wallet: Wallet, make_user) -> None:
    quota.hold(asked("r1", wallet))
    with pytest.raises(RequestIdUsed):
        quota.hold(asked("r1", make_user().wallet))


def test_use_beyond_the_hold_is_charged_as_far_as_the_balance_goes(wallet: Wallet) -> None:
    quota.hold(asked("r1", wallet, prompt=10, most=10))
    quota.settle(used("r1", wallet, prompt=10, answer=30))
    assert balance(wallet) == (START - 40 * PRICE, 0)
    quota.hold(asked("r2", wallet, prompt=10, most=10))
    quota.settle(used("r2", wallet, prompt=10, answer=5000))
    assert balance(wallet) == (0, 0)
    assert UsageRecord.objects.get(request_id="r2").cost == START - 40 * PRICE


def test_a_request_that_used_nothing_costs_nothing(wallet: Wallet) -> None:
    quota.hold(asked("r1", wallet))
    quota.settle(used("r1", wallet))
    assert balance(wallet) == (START, 0)
    assert UsageRecord.objects.get().cost == 0


def test_an_unlimited_wallet_is_recorded_and_never_refused(wallet: Wallet) -> None:
    quota.adjust(wallet, -START)
    quota.set_unlimited(wallet, True)
    assert quota.hold(asked("r1", wallet, prompt=10**6, most=10**6)) == Held("r1", 0, 10**6, True)
    quota.settle(used("r1", wallet, prompt=10, answer=5))
    assert balance(wallet) == (0, 0)
    entry = LedgerEntry.objects.get(kind="settle")
    assert (entry.cost, entry.available_change, entry.held_change) == (15 * PRICE, 0, 0)
    assert UsageRecord.objects.get().cost == 15 * PRICE


def test_a_wallet_made_unlimited_meanwhile_gets_its_hold_back(wallet: Wallet) -> None:
    quota.hold(asked("r1", wallet))
    quota.set_unlimited(wallet, True)
    quota.settle(used("r1", wallet, prompt=5))
    assert balance(wallet) == (START, 0)


def test_at_price_0_nothing_is_held_and_usage_is_still_recorded(wallet: Wallet, settings) -> None:
    settings.TOKEN_PRICE = 0
    assert quota.hold(asked("r1", wallet, most=10**6)) == Held("r1", 0, 10**6, True)
    quota.settle(used("r1", wallet, prompt=10, answer=5))
    quota.settle(used("r1", wallet, prompt=10, answer=5))
    assert balance(wallet) == (START, 0)
    record = UsageRecord.objects.get()
    assert (record.cost, record.completion_tokens) == (0, 5)


def test_releasing_gives_everything_back_once(wallet: Wallet) -> None:
    quota.hold_many([asked("r1", wallet), asked("r2", wallet)])
    assert quota.release_many(["r1", "unknown"]) == 1
    assert quota.release_many(["r1"]) == 0
    assert balance(wallet) == (START - 30 * PRICE, 30 * PRICE)


def test_a_settlement_that_comes_after_the_release_is_still_charged(wallet: Wallet) -> None:
    quota.hold(asked("r1", wallet))
    quota.release_many(["r1"])
    quota.settle(used("r1", wallet, prompt=5))
    assert balance(wallet) == (START - 5 * PRICE, 0)


def test_only_the_holds_of_processes_that_are_gone_are_released(wallet: Wallet) -> None:
    quota.hold_many([asked(f"r{number}", wallet, prompt=1, most=1) for number in range(5)])
    host, pid, started = process_identity.own_identity().rsplit(":", 2)
    reused_pid = f"{host}:{pid}:{float(started) - 1000:.2f}"
    Hold.objects.filter(request_id__in=["r0", "r1", "r2"]).update(owner=reused_pid)
    Hold.objects.filter(request_id="r3").update(owner="elsewhere:1:1.00")
    assert quota.release_dead_holds() == 3
    assert quota.release_dead_holds() == 0
    assert sorted(Hold.objects.values_list("request_id", flat=True)) == ["r3", "r4"]
    assert balance(wallet) == (START - 4 * PRICE, 4 * PRICE)


def test_a_hold_of_another_machine_is_given_back_after_a_day(wallet: Wallet) -> None:
    """Or of this one, which was called otherwise then: a container has a new name at each start."""
    quota.hold_many([asked(f"r{number}", wallet, prompt=1, most=1) for number in range(3)])
    Hold.objects.exclude(request_id="r2").update(owner="elsewhere:1:1.00")
    Hold.objects.exclude(request_id="r1").update(created_at=timezone.now() - timedelta(days=1, minutes=1))
    assert quota.release_dead_holds() == 1
    assert sorted(Hold.objects.values_list("request_id", flat=True)) == ["r1", "r2"], (
        "a young one, and one whose process lives"
    )
    quota.settle(used("r0", wallet, 5))
    assert balance(wallet) == (START - 4 * PRICE - 5 * PRICE, 4 * PRICE), "what it did use is charged all the same"


def test_more_dead_holds_than_are_released_at_once(wallet: Wallet, monkeypatch) -> None:
    monkeypatch.setattr(quota, "RELEASED_AT_ONCE", 3)
    quota.hold_many([asked(f"r{number}", wallet, prompt=1, most=1) for number in range(8)])
    host = process_identity.own_identity().rsplit(":", 2)[0]
    Hold.objects.update(owner=f"{host}:1:1.00")
    assert quota.release_dead_holds() == 8


@pytest.mark.parametrize("size", [1, 50])
def test_a_batch_takes_the_same_few_queries_whatever_its_size(size: int, wallet: Wallet, make_user) -> None:
    wallets = [wallet, *[make_user().wallet for _number in range(4)]]
    ids = [f"r{number}" for number in range(size)]
    mine = {request_id: wallets[number % 5] for number, request_id in enumerate(ids)}
    with CaptureQueriesContext(connection) as holding:
        quota.hold_many([asked(request_id, mine[request_id], 1, 1) for request_id in ids])
    with CaptureQueriesContext(connection) as settling:
        quota.settle_many([used(request_id, mine[request_id], 1) for request_id in ids])
    with CaptureQueriesContext(connection) as repeating:
        quota.settle_many([used(request_id, mine[request_id], 1) for request_id in ids])
    # two savepoint statements each; the rest: lock, entries, (holds, delete,) wallets, entries, holds or
    # usage and (read, write) its sum by the hour
    assert [len(run) - 2 for run in (holding, settling, repeating)] == [5, 9, 3]


def test_a_settlement_the_database_refuses_does_not_spoil_the_others(wallet: Wallet) -> None:
    quota.hold_many([asked("good", wallet), asked("bad", wallet)])
    bad = used("bad", wallet, 5)
    object.__setattr__(bad.usage, "model_name", "m")
    object.__setattr__(bad.usage, "status", None)
    quota.settle_many([bad, used("good", wallet, 5)])
    assert balance(wallet) == (START - 35 * PRICE, 30 * PRICE)
    assert UsageRecord.objects.get().request_id == "good"


def test_figures_outside_the_columns_are_fitted_not_fatal(wallet: Wallet) -> None:
    odd = used("r1", wallet, -5, 3, replica="x" * 999, duration_ms=10**12, first_token_ms=-1)
    object.__setattr__(odd.usage, "model_name", "a\x00b" * 200)
    quota.settle(odd)
    record = UsageRecord.objects.get()
    assert (record.prompt_tokens, len(record.replica), record.duration_ms) == (0, 220, 2**31 - 1)
    assert "\x00" not in record.model_name


def test_a_wallet_that_does_not_exist_is_a_refusal_and_no_crash(wallet: Wallet) -> None:
    nobody = Wallet(pk=10**9)
    good, bad = quota.hold_many([asked("r1", wallet), asked("r2", nobody)])
    assert isinstance(good, Held)
    assert isinstance(bad, InsufficientQuota)
    quota.settle_many([used("r2", nobody, 5), used("r1", wallet, 5)])
    assert balance(wallet) == (START - 5 * PRICE, 0)


def test_top_up_and_corrections(wallet: Wallet) -> None:
    assert quota.top_up(wallet, 500, "thanks").available == START + 500
    assert quota.adjust(wallet, -500).available == START
    with pytest.raises(InsufficientQuota):
        quota.adjust(wallet, -START - 1)
    for change in (quota.top_up, quota.grant):
        for amount in (0, -1, 10**15 + 1):
            with pytest.raises(ValueError):
                change(wallet, amount)
    assert balance(wallet) == (START, 0)


def test_a_balance_cannot_grow_past_what_the_database_can_count(wallet: Wallet) -> None:
    Wallet.objects.filter(pk=wallet.pk).update(available=10**18)
    LedgerEntry.objects.create(wallet=wallet, kind="grant", available_change=10**18 - START)
    with pytest.raises(ValueError):
        quota.top_up(wallet, 1)


def test_the_database_itself_refuses_a_negative_balance(wallet: Wallet) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Wallet.objects.filter(pk=wallet.pk).update(available=-1)


def test_ensure_wallet_opens_one_where_there_is_none(db: None) -> None:
    user = User.objects.create_user("made-elsewhere")
    assert quota.ensure_wallet(user).available == START
    assert quota.ensure_wallet(user).available == START


def test_history_keeps_the_time_it_was_told(wallet: Wallet) -> None:
    then = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    quota.settle(used("r1", wallet, created_at=then))
    assert UsageRecord.objects.get().created_at == then


class TestTheProofFindsEveryBreak:
    """``ledger_problems`` is what other tests and people rely on, so it must be able to fail."""

    @pytest.fixture(autouse=True)
    def _break(self, wallet: Wallet):
        quota.hold_many([asked("open", wallet), asked("done", wallet)])
        quota.settle(used("done", wallet, 5))
        assert ledger_problems() == []
        with transaction.atomic():
            yield
            assert ledger_problems() != []
            transaction.set_rollback(True)

    def test_a_wallet_changed_by_hand(self, wallet: Wallet) -> None:
        Wallet.objects.update(available=1)

    def test_a_hold_that_vanished(self) -> None:
        Hold.objects.all().delete()

    def test_a_hold_of_another_amount(self) -> None:
        Hold.objects.update(amount=1)

    def test_an_entry_that_vanished(self) -> None:
        QuerySet(LedgerEntry).filter(kind="settle").delete()  # what the table itself refuses

    def test_a_release_after_the_settlement(self, wallet: Wallet) -> None:
        """Even one that moves nothing: of a request that was settled nothing is left to be released."""
        LedgerEntry.objects.create(wallet=wallet, kind="release", request_id="done")

    def test_a_release_of_another_amount(self, wallet: Wallet) -> None:
        quota.hold(asked("r3", wallet))
        quota.release_many(["r3"])
        quota.settle(used("r3", wallet))
        QuerySet(LedgerEntry).filter(kind="release").update(available_change=1, held_change=-1)
        settled = QuerySet(LedgerEntry).filter(kind="settle", request_id="r3")
        settled.update(available_change=30 * PRICE - 1, held_change=1 - 30 * PRICE)

    def test_a_settlement_after_the_release_that_takes_from_what_is_held(self, wallet: Wallet) -> None:
        quota.hold(asked("r3", wallet))
        quota.release_many(["r3"])
        quota.settle(used("r3", wallet, 5))
        QuerySet(LedgerEntry).filter(kind="settle", request_id="r3").update(
            available_change=5 * PRICE, held_change=-10 * PRICE
        )
        LedgerEntry.objects.create(wallet=wallet, kind="adjust", available_change=-10 * PRICE, held_change=10 * PRICE)

    def test_a_hold_that_holds_more_than_it_takes(self, wallet: Wallet) -> None:
        QuerySet(LedgerEntry).filter(kind="hold", request_id="open").update(available_change=-1)
        LedgerEntry.objects.create(wallet=wallet, kind="adjust", available_change=1 - 30 * PRICE)

    def test_a_settlement_from_another_balance_than_the_holds(self, wallet: Wallet, make_user) -> None:
        other = make_user().wallet
        quota.hold(asked("r3", wallet))
        quota.release_many(["r3"])
        quota.settle(used("r3", other))

    def test_a_usage_record_with_another_cost(self) -> None:
        UsageRecord.objects.update(cost=1)

    def test_a_settlement_whose_cost_is_not_what_was_charged(self) -> None:
        QuerySet(LedgerEntry).filter(kind="settle").update(cost=1)
        UsageRecord.objects.update(cost=1)


@pytest.mark.django_db
def test_entries_are_only_ever_added(wallet: Wallet) -> None:
    entry = LedgerEntry.objects.get()
    entry.cost = 5
    for attempt in (
        entry.save,
        entry.delete,
        lambda: LedgerEntry.objects.update(cost=5),
        lambda: LedgerEntry.objects.filter(pk=entry.pk).delete(),
        lambda: LedgerEntry.objects.bulk_update([entry], ["cost"]),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert LedgerEntry.objects.get().cost == 0
