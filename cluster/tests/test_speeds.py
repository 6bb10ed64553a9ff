from __future__ import annotations

import pytest

from cluster.speeds import FIRST_READING, FIRST_WRITING, Durations, Speeds, Usual


def test_before_anything_was_seen():
    speeds = Speeds(Usual())
    assert (speeds.reading, speeds.writing(1)) == (FIRST_READING, FIRST_WRITING)
    assert speeds.writing(4) == FIRST_WRITING / 4


def test_each_is_as_much_faster_or_slower_as_was_seen():
    usual = Usual()
    quick, slow, new = Speeds(usual), Speeds(usual), Speeds(usual)
    for _ in range(40):
        quick.read(300, 1)
        slow.read(100, 1)
        quick.wrote(40, 1, 1)
        slow.wrote(40, 4, 1)
    assert quick.reading == pytest.approx(300, rel=0.1)
    assert slow.reading == pytest.approx(100, rel=0.1)
    assert 100 < new.reading < 300
    assert quick.writing(1) == pytest.approx(40, rel=0.2)
    assert slow.writing(1) == pytest.approx(10, rel=0.2)
    assert slow.writing(2) / quick.writing(2) == pytest.approx(1 / 4, rel=0.2)  # nobody has written beside another


def test_one_that_was_slow_once_is_not_given_up():
    usual = Usual()
    others, unlucky = Speeds(usual), Speeds(usual)
    for _ in range(50):
        others.read(100, 1)
    unlucky.read(100, 4)
    assert 30 < unlucky.reading < 60
    for _ in range(30):
        unlucky.read(100, 1)
    assert unlucky.reading == pytest.approx(usual.reading, rel=0.1)


def test_what_took_long_says_more():
    """Beside what is done for every request the speed at which a few tokens are read is no speed."""
    speeds = Speeds(Usual())
    for _ in range(30):
        speeds.read(20, 0.2)
        speeds.read(2000, 10)
    assert speeds.reading == pytest.approx(2020 / 10.2, rel=0.02)


def test_figures_follow_what_is_seen():
    speeds = Speeds(Usual())
    for tokens_per_second in (50, 200):
        for _ in range(100):
            speeds.read(tokens_per_second, 1)
        assert speeds.reading == pytest.approx(tokens_per_second, rel=0.1)


def test_more_at_work_share_what_is_known_of_fewer():
    usual = Usual()
    usual.wrote(30, 1, 2)
    assert usual.writing(4) == 15
    assert usual.writing(1) == 30  # no less than that
    usual.wrote(25, 1, 4)
    assert usual.writing(4) == 25


def test_how_long_it_will_take_yet():
    durations = Durations(5.0)
    assert (durations.mean, durations.left(0), durations.left(2), durations.left(20)) == (5, 5, 3, 20)
    for seconds in (2.0, 4.0, 12.0):
        durations.see(seconds)
    assert (durations.mean, durations.left(0)) == (6, 6)
    assert durations.left(3) == (4 + 12) / 2 - 3
    assert durations.left(5) == 7
    assert durations.left(30) == 30  # longer than all: as long again
