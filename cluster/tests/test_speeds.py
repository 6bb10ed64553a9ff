from __future__ import annotations

import pytest

from cluster.speeds import FIRST_READING, FIRST_WRITING, Durations, Speeds


def test_before_anything_was_seen():
    speeds = Speeds(Speeds())
    assert (speeds.reading, speeds.seen_reading, speeds.writing(1)) == (FIRST_READING, None, FIRST_WRITING)
    assert speeds.writing(4) == FIRST_WRITING / 4


def test_its_own_figures_come_before_those_of_its_fellows():
    fellows = Speeds()
    quick, slow, new = Speeds(fellows), Speeds(fellows), Speeds(fellows)
    quick.read(300)
    slow.read(100)
    quick.wrote(40, 1)
    assert (quick.reading, slow.reading) == (300, 100)
    assert 100 < new.reading < 300
    assert (slow.writing(1), new.writing(1)) == (40, 40)


def test_means_follow_what_is_seen():
    speeds = Speeds()
    for _ in range(50):
        speeds.read(50)
    for _ in range(50):
        speeds.read(200)
    assert speeds.reading == pytest.approx(200, rel=0.01)


def test_more_at_work_share_what_is_known_of_fewer():
    speeds = Speeds()
    speeds.wrote(30, 2)
    assert speeds.writing(4) == 15
    assert speeds.writing(1) == 30  # no less than that
    speeds.wrote(25, 4)
    assert speeds.writing(4) == 25


def test_how_long_it_will_take_yet():
    durations = Durations(5.0)
    assert (durations.mean, durations.left(0), durations.left(2), durations.left(20)) == (5, 5, 3, 20)
    for seconds in (2.0, 4.0, 12.0):
        durations.see(seconds)
    assert (durations.mean, durations.left(0)) == (6, 6)
    assert durations.left(3) == (4 + 12) / 2 - 3
    assert durations.left(5) == 7
    assert durations.left(30) == 30  # longer than all: as long again
