"""What a request is expected to cost: what has to be computed, as learnt from the requests before."""

from __future__ import annotations

import pytest

from gateway.expectation import FIRST_ANSWER, Expectation
from gateway.usage import TokenCount


def learnt(*counts: TokenCount, answers: int = 1) -> Expectation:
    expectation = Expectation()
    for count in counts * 100:
        expectation.learn(count, answers)
    return expectation


def test_before_anything_was_seen_all_of_the_prompt_and_a_usual_answer() -> None:
    assert Expectation().cost(1000, 10_000, 1) == 1000 + FIRST_ANSWER


def test_no_more_than_was_asked_for_and_at_least_one() -> None:
    assert Expectation().cost(1000, 16, 2) == 1000 + 2 * 16
    assert Expectation().cost(0, 0, 1) == 1


def test_answers_and_caches_are_learnt() -> None:
    expectation = learnt(TokenCount(prompt=1000, cached=900, completion=40))
    assert expectation.cost(500, 10_000, 3) == pytest.approx(500 * 0.1 + 3 * 40, abs=1)


def test_several_answers_are_learnt_as_one_each_and_requests_without_teach_nothing_of_them() -> None:
    assert learnt(TokenCount(completion=80), answers=4).cost(0, 10_000, 1) == pytest.approx(20, abs=1)
    assert learnt(TokenCount(prompt=50)).cost(0, 10_000, 1) == FIRST_ANSWER
