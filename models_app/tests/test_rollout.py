"""How one version of a model's replicas takes the place of another: the rule alone, in a simulated machine."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_app.rollout import Standing, Steps, next_steps


def old(number: int, ready: bool = True) -> Standing:
    return Standing(number, current=False, ready=ready)


def new(number: int, ready: bool = True, failed: bool = False, fits_instead: bool = False) -> Standing:
    return Standing(number, True, ready, failed, fits_instead)


@pytest.mark.parametrize(
    ("standings", "wanted", "steps"),
    [
        ([], 2, Steps(start=2)),
        ([new(1)], 2, Steps(start=1)),
        ([new(1), new(2)], 1, Steps(stop=(2,))),
        ([new(1, ready=False), new(2)], 1, Steps(stop=(1,))),
        ([new(1), old(2)], 0, Steps(stop=(1, 2))),
        # a new one beside the old one, which goes when the new one is ready
        ([old(1)], 1, Steps(start=1)),
        ([old(1), new(2, ready=False)], 1, Steps()),
        ([old(1), new(2)], 1, Steps(stop=(1,))),
        ([old(1), old(2), new(3)], 2, Steps(start=1, stop=(1,))),
        ([old(2), new(3)], 2, Steps(start=1)),
        # what serves nobody is renewed where it is
        ([old(1, ready=False)], 1, Steps(renew=(1,))),
        ([old(1, ready=False), old(2)], 2, Steps(renew=(1,))),
        # the new one does not come up: the old one stays, and comes back when it fails
        ([old(1), new(2, ready=False, failed=True)], 1, Steps()),
        ([old(1, ready=False), new(2, ready=False, failed=True)], 1, Steps()),
        # memory for one of them only
        ([old(1), new(2, ready=False, failed=True, fits_instead=True)], 1, Steps(stop=(1,))),
        ([old(1), old(2), new(3, ready=False, failed=True, fits_instead=True)], 2, Steps(stop=(1,))),
        # more of them, of another version
        ([old(1)], 3, Steps(start=2)),
        ([old(1), old(2), old(3)], 1, Steps(start=1, stop=(1, 2))),
    ],
)
def test_the_next_steps(standings, wanted, steps):
    assert next_steps(standings, wanted) == steps


def test_only_one_at_a_time_makes_room():
    standings = [old(2), new(3, ready=False, failed=True, fits_instead=True)]
    assert next_steps(standings, 2, leaving=1).stop == ()


@dataclass
class Simulated:
    version: int
    ready: bool = False
    leaving: bool = False


@given(seed=st.integers(), wishes=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=4))
def test_whatever_is_wished_it_is_reached_and_somebody_always_serves(seed, wishes):
    """Replicas load and leave in any order; versions and counts are changed at any time, also in the middle of a change."""
    chance = random.Random(seed)
    running: dict[int, Simulated] = {}
    served = False
    for wanted, version in wishes:
        for step in range(400):
            if step > 20 and _is_reached(running, wanted, version):
                break
            staying = {number: one for number, one in running.items() if not one.leaving}
            standings = [Standing(number, one.version == version, one.ready) for number, one in staying.items()]
            steps = next_steps(standings, wanted, len(running) - len(staying))
            _apply(running, steps, version)
            _pass_time(running, chance)
            ready = sum(one.ready and not one.leaving for one in running.values())
            assert ready or not served, "nobody serves any more"
            assert steps.start <= wanted
            served = served or bool(ready)
        else:
            raise AssertionError((wanted, version, running))


def _is_reached(running: dict[int, Simulated], wanted: int, version: int) -> bool:
    return len(running) == wanted and all(one.ready and one.version == version for one in running.values())


def _apply(running: dict[int, Simulated], steps: Steps, version: int) -> None:
    for number in steps.stop:
        running[number].leaving = True
    for number in steps.renew:
        assert not running[number].ready, "it served somebody"
        running[number] = Simulated(version)
    free = (number for number in range(1, 100) if number not in running)
    for _count in range(steps.start):
        running[next(free)] = Simulated(version)


def _pass_time(running: dict[int, Simulated], chance: random.Random) -> None:
    for number, one in list(running.items()):
        if chance.random() < 0.3:
            if one.leaving:
                del running[number]
            else:
                one.ready = True
