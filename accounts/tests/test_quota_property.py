"""Whatever happens in whatever order, the ledger stays right and nobody is charged twice, wrongly or not at all."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from accounts import quota, services
from accounts.ledger_checks import ledger_problems
from accounts.models import Hold, LedgerEntry, UsageRecord, User, Wallet
from accounts.quota import Held, HoldRequest, Settlement, UsageFigures
from llmplatform.lib import process_identity

PRICE = 1000
START = 1000 * PRICE  # DEFAULT_TOKENS
WALLETS = 3
# Few ids, so that retries, duplicates and reuse happen all the time.
request_ids = st.lists(st.integers(0, 30).map(lambda number: f"r{number}"), min_size=1, max_size=6)
tokens = st.integers(0, 400)
DEAD = f"{process_identity.own_identity().rsplit(':', 2)[0]}:1:1.00"


class Ledger(RuleBasedStateMachine):
    """The model: per wallet what came in from outside, and what each settled request must have cost."""

    @initialize()
    def open_wallets(self) -> None:
        UsageRecord.objects.all().delete()
        Hold.objects.all().delete()
        LedgerEntry.objects.all().delete()
        Wallet.objects.all().delete()
        User.objects.all().delete()
        self.wallets = [services.create_user(f"u{number}", "jh8&laks-d1").wallet for number in range(WALLETS)]
        self.deposited = [START] * WALLETS
        self.owner_of: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.finished: set[str] = set()

    def _wallet(self, request_id: str, number: int) -> int:
        """A request belongs to the wallet that first used its id."""
        return self.owner_of.setdefault(request_id, number)

    @rule(ids=request_ids, number=st.integers(0, WALLETS - 1), prompt=tokens, most=tokens)
    def hold(self, ids: list[str], number: int, prompt: int, most: int) -> None:
        requests = [HoldRequest(r, self.wallets[self._wallet(r, number)].pk, "m", prompt, most) for r in ids]
        for request, result in zip(requests, quota.hold_many(requests), strict=True):
            if isinstance(result, Held):
                assert request.request_id not in self.finished
                assert 0 <= result.max_tokens <= request.max_tokens

    @rule(ids=request_ids, number=st.integers(0, WALLETS - 1), prompt=tokens, answer=tokens)
    def settle(self, ids: list[str], number: int, prompt: int, answer: int) -> None:
        figures = UsageFigures(
            model_name="m",
            endpoint="chat.completions",
            status=200,
            outcome="completed",
            prompt_tokens=prompt,
            completion_tokens=answer,
        )
        quota.settle_many([Settlement(r, self.wallets[self._wallet(r, number)].pk, figures) for r in ids])
        for request_id in ids:
            record = UsageRecord.objects.get(request_id=request_id)
            if request_id in self.charged:
                assert record.cost == self.charged[request_id], "a second settlement changed the cost"
            else:
                assert record.cost <= (prompt + answer) * PRICE
                self.charged[request_id] = record.cost
        self.finished.update(ids)

    @rule(ids=request_ids)
    def release(self, ids: list[str]) -> None:
        open_ones = set(Hold.objects.filter(request_id__in=ids).values_list("request_id", flat=True))
        assert quota.release_many(ids) == len(open_ones)
        self.finished.update(open_ones)

    @rule(share=st.integers(1, 3))
    def a_process_dies(self, share: int) -> None:
        dead = list(Hold.objects.order_by("pk").values_list("request_id", flat=True))[::share]
        Hold.objects.filter(request_id__in=dead).update(owner=DEAD)
        assert quota.release_dead_holds() == len(dead)
        self.finished.update(dead)

    @rule(number=st.integers(0, WALLETS - 1), amount=st.integers(-400 * PRICE, 400 * PRICE).filter(bool))
    def deposit(self, number: int, amount: int) -> None:
        try:
            (quota.top_up if amount > 0 else quota.adjust)(self.wallets[number], amount)
        except quota.InsufficientQuota:
            return
        self.deposited[number] += amount

    @invariant()
    def nothing_is_broken(self) -> None:
        assert ledger_problems() == []

    @invariant()
    def what_came_in_is_there_or_was_charged(self) -> None:
        for number, wallet in enumerate(getattr(self, "wallets", [])):
            wallet.refresh_from_db()
            spent = sum(cost for request_id, cost in self.charged.items() if self.owner_of[request_id] == number)
            assert wallet.available + wallet.held == self.deposited[number] - spent


# The same run everywhere; a longer search is a matter of changing these numbers. A failure is shown as found: making it smaller
# (Phase.shrink) takes minutes, add it when you have one.
EFFORT = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.django_db
def test_no_sequence_of_events_breaks_the_ledger() -> None:
    run_state_machine_as_test(Ledger, settings=EFFORT)
