from __future__ import annotations

from gateway.breaker import FIRST_REST, LONGEST_REST, Breaker, RetryBudget


def test_one_that_failed_rests_and_is_tried_by_one_request_then() -> None:
    breaker = Breaker()
    assert not breaker.rests(0.0, 5)
    breaker.failed(10.0)
    assert breaker.rests(10.0 + FIRST_REST - 0.01, 0)
    assert not breaker.rests(10.0 + FIRST_REST, 0)
    assert breaker.rests(10.0 + FIRST_REST, 1)  # whose end decides
    breaker.succeeded()
    assert not breaker.rests(10.0 + FIRST_REST, 1)


def test_it_rests_longer_each_time_but_not_for_ever() -> None:
    breaker, rests = Breaker(), []
    for _ in range(12):
        breaker.failed(0.0)
        rests.append(next(second for second in range(1, 200) if not breaker.rests(second, 0)))
    assert rests[:4] == [1, 2, 4, 8]
    assert rests[-1] == LONGEST_REST
    breaker.succeeded()
    breaker.failed(0.0)
    assert not breaker.rests(FIRST_REST, 0)


def test_tries_again_are_a_tenth_of_all_requests() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(12)] == [True] * 10 + [False] * 2
    for _ in range(100):
        budget.asked()
    assert sum(budget.spend() for _ in range(100)) in (9, 10)
