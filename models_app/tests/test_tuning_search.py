"""The search for settings, on made-up figures: never worse than the defaults, bounded, not fooled by noise."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from models_app.tuning import candidates
from models_app.tuning.candidates import AIMS, MEMORY, THROUGHPUT, Circumstances, Setting
from models_app.tuning.measuring import load_for
from models_app.tuning.search import Figure, NothingToMeasure, Outcome, Searcher
from models_app.tuning.trial import Load

BROKEN = {"code": "not_enough_memory", "params": {}}
MOST = 100


def drive(figure, *, aim=THROUGHPUT, runs=MOST, known=(), cores=8) -> tuple[Outcome, list[Setting]]:
    """Answers each candidate by ``figure(setting)``; the outcome, and what was measured."""
    measured: list[Setting] = []
    searcher = Searcher(aim, 4, lambda more: len(measured) + more <= runs)
    around = Circumstances(aim, 4, cores, 2 * cores)
    search = searcher.run(Setting(), known, candidates.axes(around))
    setting = next(search)
    while True:
        measured.append(setting)
        try:
            setting = search.send(figure(setting))
        except StopIteration as stop:
            return stop.value, measured


def flat(speed: float = 10.0, memory: int = 100) -> Figure:
    return Figure(speed, speed, memory)


@pytest.mark.parametrize("aim", AIMS)
def test_the_defaults_are_measured_first_and_last(aim):
    outcome, measured = drive(lambda setting: flat(), aim=aim)
    assert measured[0] == measured[-1] == Setting()
    assert outcome.chosen is outcome.defaults
    assert outcome.gain == 1


def test_what_helps_is_kept_and_combined():
    def figure(setting):
        speed = 10.0
        speed *= 1.3 if setting.threads == 4 else 1
        speed *= 1.2 if setting.flash_attention == "on" else 1
        return flat(speed * (0.5 if setting.speculative == "ngram" else 1))

    outcome, measured = drive(figure)
    assert outcome.chosen.setting == Setting(threads=4, flash_attention="on")
    assert outcome.gain == pytest.approx(1.56)
    assert measured[-2:] == [outcome.chosen.setting, Setting()], "both once more"


def test_within_noise_the_defaults_win():
    outcome, _measured = drive(lambda setting: flat(10.4 if setting.threads == 4 else 10))
    assert outcome.chosen.setting == Setting()


def test_when_the_defaults_themselves_vary_more_is_asked_for():
    seen = []

    def figure(setting):
        seen.append(setting)
        if setting == Setting():
            return flat(10 if seen.count(setting) == 1 else 13)
        return flat(14 if setting.threads == 4 else 10)

    assert drive(figure)[0].chosen.setting == Setting()


def test_luck_that_does_not_come_again_is_no_gain():
    seen = []

    def figure(setting):
        seen.append(setting)
        return flat(20 if setting.threads == 4 and seen.count(setting) == 1 else 10 if setting == Setting() else 9)

    outcome, _measured = drive(figure, runs=MOST)
    assert outcome.chosen.speed >= outcome.defaults.speed


@pytest.mark.parametrize("seed", range(30))
def test_never_worse_than_the_defaults_whatever_the_noise(seed):
    chance = random.Random(seed)
    true = {}

    def figure(setting):
        true.setdefault(setting, 10.0 if setting == Setting() else chance.uniform(5, 11))
        return flat(true[setting] * chance.uniform(0.98, 1.02))

    outcome, _measured = drive(figure)
    assert true[outcome.chosen.setting] >= 10


@pytest.mark.parametrize("runs", [1, 2, 3, 5, 8])
def test_the_number_of_runs_is_bounded_and_the_end_is_kept_free(runs):
    outcome, measured = drive(lambda setting: flat(10 + len(str(setting)) / 100), runs=runs)
    assert len(measured) <= max(2, runs)
    assert measured[-1] == Setting()
    assert outcome.gain >= 1


def test_no_candidate_twice_and_few_in_all():
    _outcome, measured = drive(lambda setting: flat(), cores=64)
    assert len(measured) == len(set(measured)) + 1
    assert len(measured) < 30


def test_what_cannot_start_is_a_row_with_its_reason():
    outcome, _measured = drive(lambda setting: BROKEN if setting.replicas > 1 else flat())
    (row, *_others) = [row for row in outcome.rows if row.setting.replicas > 1]
    assert row.problem == BROKEN
    assert outcome.chosen.setting == Setting()


def test_when_the_defaults_cannot_start_there_is_no_result():
    with pytest.raises(NothingToMeasure):
        drive(lambda setting: BROKEN)


def test_little_memory_at_the_same_speed():
    def figure(setting):
        slow = setting.cache_type == "q4_0"
        return flat(5 if slow else 10, {"f16": 100, "q8_0": 60, "q4_0": 30}[setting.cache_type] + 5 * setting.slots)

    outcome, _measured = drive(figure, aim=MEMORY)
    assert outcome.chosen.setting == replace(Setting(), cache_type="q8_0", slots=1)
    assert outcome.gain == pytest.approx(120 / 65)


def test_the_settings_of_now_are_looked_at_too():
    now = Setting(ubatch=4096, slots=3)
    outcome, measured = drive(lambda setting: flat(20 if setting.ubatch == 4096 else 10), known=[now])
    assert now in measured
    assert outcome.chosen.setting.ubatch == 4096


def test_replicas_share_slots_and_threads():
    now = Setting(threads=8, slots=4)
    assert candidates.with_value(now, "replicas", 2, 4) == Setting(slots=2, replicas=2)


@pytest.mark.parametrize(
    ("seconds", "budget", "expected"),
    [
        (0.5, 240, Load(4, 8)),
        (3, 240, Load(4, 2)),
        (6, 240, Load(4, 1)),
        (40, 240, Load(4, 1, 16)),
        (12, 240, Load(4, 1, 24)),
    ],
)
def test_a_run_is_long_enough_to_mean_something_and_short_enough_to_fit(seconds, budget, expected):
    assert load_for(Load(4), seconds, budget) == expected
