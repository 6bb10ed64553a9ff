"""A request's place within limits, when one model fails and another one answers."""

from __future__ import annotations

import asyncio

import pytest

from gateway import errors
from gateway.errors import GatewayError
from gateway.places import Place


class Limits:
    def __init__(self) -> None:
        self.left: list[tuple[str, int]] = []

    def finished(self, request_id: str, tokens: int) -> None:
        self.left.append((request_id, tokens))


def enter(place: Place, tokens: int, error: BaseException | None) -> None:
    with place.kept_after(GatewayError):
        place.leave(tokens)
        if error is not None:
            raise error


def test_whoever_answers_after_a_failure_tells_what_was_used() -> None:
    limits = Limits()
    place = Place(limits, "r", {})
    with pytest.raises(GatewayError):
        enter(place, 0, errors.upstream_error())
    assert limits.left == []
    place.leave(7)
    assert limits.left == [("r", 7)]


@pytest.mark.parametrize("error", [None, asyncio.CancelledError(), RuntimeError()])
def test_nobody_else_comes_after_any_other_end(error: BaseException | None) -> None:
    limits = Limits()
    place = Place(limits, "r", {})
    if error is None:
        enter(place, 5, None)
    else:
        with pytest.raises(type(error)):
            enter(place, 5, error)
    assert limits.left == [("r", 5)]


def test_an_answer_that_goes_on_leaves_when_it_ends() -> None:
    limits = Limits()
    place = Place(limits, "r", {})
    with place.kept_after(GatewayError):
        pass
    assert limits.left == []
    place.leave(9)
    assert limits.left == [("r", 9)]
