from __future__ import annotations

from gateway.breaker import FIRST_REST, LONGEST_REST, Breaker, RetryBudget


def test_one_that_failed_rests_and_is_tried_by_one_request_then() -> None:
    breaker = Breaker()
    assert not breaker.rests(0.0, [-5.0])
    breaker.failed(10.0)
    over = 10.0 + FIRST_REST
    assert breaker.rests(over - 0.01, [])
    assert not breaker.rests(over, [])
    assert not breaker.rests(over, [9.0])  # which began before it failed, and says nothing
    assert breaker.rests(over + 1, [9.0, over + 0.5])  # the end of the latter decides
    breaker.succeeded()
    assert not breaker.rests(over + 1, [over + 0.5])


def test_it_rests_longer_each_time_but_not_for_ever() -> None:
    breaker, rests, now = Breaker(), [], 0.0
    for _ in range(12):
        breaker.failed(now)
        rests.append(next(second for second in range(1, 200) if not breaker.rests(now + second, [])))
        now += rests[-1]
    assert rests[:4] == [1, 2, 4, 8]
    assert rests[-1] == LONGEST_REST
    breaker.succeeded()
    breaker.failed(now)
    assert not breaker.rests(now + FIRST_REST, [])


def test_all_that_fail_together_are_one_failure() -> None:
    breaker = Breaker()
    for number in range(8):
        breaker.failed(number / 100)
    assert not breaker.rests(FIRST_REST, [])


def test_a_failure_after_it_has_worked_counts_though_it_would_have_rested() -> None:
    breaker = Breaker()
    breaker.failed(0.0)
    breaker.succeeded()
    breaker.failed(0.1)
    assert breaker.rests(0.2, [])


def test_tries_again_are_a_tenth_of_all_requests() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(12)] == [True] * 10 + [False] * 2
    for _ in range(100):
        budget.asked()
    assert sum(budget.spend() for _ in range(100)) in (9, 10)
