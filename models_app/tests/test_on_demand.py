"""Which models are loaded: single decisions, and made-up days with clocks of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_app.on_demand import FAILED_STAY, PATIENCE, STAY_LEAST, Phase, Standing, decide, stay

ROOM = 100


def away(number: int, size: int, waiting: float | None = None, **more) -> Standing:
    return Standing(number, Phase.AWAY, size, waiting=waiting, **more)


def ready(number: int, size: int, **more) -> Standing:
    return Standing(number, Phase.READY, size, **{"since": 1000.0, "idle": 100.0, "ttl": 600.0} | more)


def loaded(*standings: Standing, free: int = ROOM) -> set[int]:
    return set(decide(standings, free).loaded)


def test_nobody_asks_for_anything():
    assert loaded(away(1, 10)) == set()


def test_what_is_asked_for_is_loaded_while_there_is_room():
    assert loaded(away(1, 60, waiting=2.0), away(2, 60, waiting=0.5), away(3, 40, waiting=1.0)) == {1, 3}


def test_what_is_idle_for_long_goes_and_what_is_used_stays():
    assert loaded(ready(1, 10, idle=599.0), ready(2, 10, idle=600.0), ready(3, 10, idle=700.0, busy=True)) == {1, 3}
    assert loaded(ready(1, 10, idle=1e9, ttl=None), ready(2, 10, idle=1e9, since=5.0)) == {1, 2}  # loaded a moment ago


def test_the_least_recently_used_makes_room_by_bytes_and_not_by_number():
    three = (ready(1, 20, idle=300.0), ready(2, 50, idle=200.0), ready(3, 20, idle=100.0))
    decision = decide([*three, away(4, 65, waiting=0.1)], 10)
    assert decision.loaded == {3}  # 10 free, 20 of the first, 50 of the second
    assert decision.held_up == {4: (1, 2)}
    # What the first would give is not needed when the second has to go anyway.
    assert loaded(ready(1, 5, idle=300.0), ready(2, 90, idle=200.0), away(3, 80, waiting=0.1), free=5) == {1}


def test_it_is_loaded_when_they_have_gone():
    leaving = Standing(1, Phase.LEAVING, 60, since=1.0)
    assert decide([leaving, away(2, 90, waiting=1.0)], 40).held_up == {2: (1,)}
    assert loaded(away(1, 60, since=2.0), away(2, 90, waiting=2.0)) == {2}


@pytest.mark.parametrize(
    "in_the_way",
    [
        ready(1, 80, busy=True),
        ready(1, 80, waiting=3.0),
        ready(1, 80, pinned=True),
        ready(1, 80, since=STAY_LEAST - 1),
        Standing(1, Phase.COMING, 80, since=3.0),
    ],
    ids=["answers", "is waited for", "pinned", "has come just now", "loads"],
)
def test_who_does_not_make_room(in_the_way):
    decision = decide([in_the_way, away(2, 70, waiting=1.0)], 20)
    assert 1 in decision.loaded
    if not in_the_way.pinned:  # else it can never fit, and its start says so
        assert decision.held_up == {2: (1,)}


def test_one_in_use_gives_way_to_somebody_who_has_waited():
    busy = ready(1, 80, busy=True, waiting=50.0)
    assert loaded(busy, away(2, 70, waiting=PATIENCE - 1), free=20) == {1}
    assert loaded(busy, away(2, 70, waiting=PATIENCE), free=20) == set()
    # Requests for the first have waited longer, and still it is the turn of the second.
    left = Standing(1, Phase.AWAY, 80, since=3.0, waiting=60.0)
    assert loaded(left, away(2, 70, waiting=PATIENCE + 3)) == {2}


def test_what_can_never_fit_is_begun_so_that_its_start_says_why():
    assert loaded(away(1, ROOM + 1, waiting=0.0), away(2, 10, waiting=0.0)) == {1, 2}
    assert loaded(ready(1, 80, pinned=True), away(2, 70, waiting=0.0), free=20) == {1, 2}


def test_a_later_one_does_not_take_what_an_earlier_one_waits_for():
    busy = ready(1, 80, busy=True)
    assert loaded(busy, away(2, 60, waiting=3.0), away(3, 20, waiting=1.0), free=20) == {1, 3}  # 40 are left then
    assert loaded(busy, away(2, 90, waiting=3.0), away(3, 20, waiting=1.0), free=20) == {1}


def test_one_of_a_group_at_a_time():
    first = ready(1, 10, group="big")
    assert decide([first, away(2, 10, waiting=0.1, group="big")], 90).held_up == {2: (1,)}
    assert loaded(away(1, 10, since=1.0, group="big"), away(2, 10, waiting=0.2, group="big")) == {2}
    assert loaded(ready(1, 10, busy=True, group="big"), away(2, 10, waiting=0.1, group="other")) == {1, 2}


def test_what_did_not_come_up_is_left_alone_for_a_while():
    failed = Standing(1, Phase.FAILED, 10, since=FAILED_STAY - 1, waiting=1.0)
    assert loaded(failed) == {1}
    assert loaded(Standing(1, Phase.FAILED, 10, since=FAILED_STAY)) == set()


# -- days ------------------------------------------------------------------------------------------------------------
@dataclass
class Model:
    number: int
    size: int
    load: int
    ttl: float
    pinned: bool
    group: str
    phase: Phase = Phase.AWAY
    since: float = -math.inf
    used: float = -math.inf
    answering_until: list[int] = field(default_factory=list)
    waiting: list[tuple[int, int]] = field(default_factory=list)  # (asked at, how long the answer takes)
    loads: int = 0
    refused: int = 0

    def standing(self, now: int) -> Standing:
        return Standing(
            self.number, self.phase, self.size, since=now - self.since, idle=now - self.used,
            waiting=float(now - self.waiting[0][0]) if self.waiting else None, busy=bool(self.answering_until),
            ttl=self.ttl, stay=stay(self.load), pinned=self.pinned, group=self.group,
        )  # fmt: skip

    def to(self, phase: Phase, now: int) -> None:
        if not (phase is Phase.AWAY and self.phase is Phase.LEAVING):
            self.since = now
        self.phase = phase


class Day:
    """A machine with ROOM bytes, in steps of a second."""

    def __init__(self, models: list[Model]) -> None:
        self.models = models
        self.now = 0

    def taken(self) -> int:
        there = (Phase.COMING, Phase.READY, Phase.LEAVING)
        return sum(model.size for model in self.models if model.phase in there)

    def step(self) -> None:
        self.now += 1
        for model in self.models:
            self._live(model)
        before = {model.number: model.standing(self.now) for model in self.models}
        decision = decide(before.values(), ROOM - self.taken())
        for model in self.models:
            self._obey(model, before[model.number], model.number in decision.loaded)
        assert self.taken() <= ROOM
        groups = [m.group for m in self.models if m.group and m.phase in (Phase.COMING, Phase.READY, Phase.LEAVING)]
        assert len(groups) == len(set(groups))

    def _live(self, model: Model) -> None:
        model.answering_until = [end for end in model.answering_until if end > self.now]
        if model.phase is Phase.COMING and self.now - model.since >= model.load:
            model.to(Phase.READY, self.now)
        if model.phase is Phase.LEAVING and not model.answering_until:
            model.to(Phase.AWAY, self.now)
        if model.phase is Phase.FAILED:
            model.refused += len(model.waiting)
            model.waiting.clear()
        if model.phase is Phase.READY:
            while model.waiting and len(model.answering_until) < 2:
                model.answering_until.append(self.now + model.waiting.pop(0)[1])
        if model.answering_until:
            model.used = self.now

    def _obey(self, model: Model, before: Standing, is_wanted: bool) -> None:
        if is_wanted and model.phase is Phase.AWAY:
            fits = model.size <= ROOM - self.taken()
            model.loads += fits
            model.to(Phase.COMING if fits else Phase.FAILED, self.now)
        elif not is_wanted and model.phase is Phase.READY:
            assert before.since >= before.stay or before.idle >= model.ttl
            assert not before.pinned or before.idle >= model.ttl
            model.to(Phase.LEAVING, self.now)
        elif not is_wanted and model.phase is Phase.FAILED:
            model.to(Phase.AWAY, self.now)
        else:
            assert is_wanted or model.phase is not Phase.COMING


MODELS = st.lists(
    st.builds(
        Model,
        number=st.just(0),
        size=st.integers(1, 120),
        load=st.integers(1, 20),
        ttl=st.integers(5, 60),
        pinned=st.booleans(),
        group=st.sampled_from(["", "", "a", "b"]),
    ),
    min_size=1,
    max_size=6,
)
REQUESTS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 5), st.integers(0, 30)), max_size=60)


@settings(deadline=None)
@given(MODELS, REQUESTS)
def test_every_request_is_answered_or_refused_and_nothing_thrashes(models, requests):
    for number, model in enumerate(models, 1):
        model.number = number
    day = Day(models)
    while day.now < 200 or any(model.waiting or model.answering_until for model in models):
        for at, which, seconds in requests:
            if at == day.now:
                models[which % len(models)].waiting.append((day.now, seconds))
        day.step()
        assert day.now < 10_000, "somebody waits for ever"
    for model in models:
        assert model.size > ROOM or model.loads + model.refused >= bool(model.answering_until)
        # A load, the shortest stay, and again.
        assert model.loads <= 1 + day.now / (model.load + min(stay(model.load), model.ttl))


def test_two_people_by_turns_cause_a_bounded_number_of_loads():
    """A-B-A-B without a pause, each of them takes the whole machine."""
    models = [Model(number, 80, 4, 600.0, False, "") for number in (1, 2)]
    day, longest = Day(models), 0
    while day.now < 3600:
        for model in models:
            if not model.waiting and not model.answering_until:
                model.waiting.append((day.now, 1))
            if model.waiting:
                longest = max(longest, day.now - model.waiting[0][0])
        day.step()
    assert min(model.loads for model in models) > 10
    assert sum(model.loads for model in models) <= 3600 / (4 + stay(4))
    assert longest <= 2 * (PATIENCE + 4 + stay(4))
