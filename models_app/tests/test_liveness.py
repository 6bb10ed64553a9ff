"""When a server counts as stuck."""

from __future__ import annotations

import pytest

from models_app.liveness import Liveness, Look


def first_stuck(looks: list[Look]) -> float | None:
    liveness = Liveness(idle_limit=30, working_limit=600)
    return next((look.at for look in looks if liveness.is_stuck(look)), None)


def looks(seconds: int, busy: bool = True, tokens: float = 0.0, processor: float = 0.0) -> list[Look]:
    """One in five seconds, with that many tokens and that much processor time in a second."""
    return [Look(at, busy, at * tokens, at * processor) for at in range(0, seconds, 5)]


@pytest.mark.parametrize(
    ("seen", "stuck"),
    [
        (looks(2000, busy=False), None),
        (looks(2000, tokens=1), None),
        (looks(2000, tokens=0.001, processor=2), None),
        (looks(2000), 30),
        (looks(2000, processor=0.001), 30),
        (looks(2000, processor=2), 600),
    ],
    ids=["nothing to do", "writes", "reads a long prompt", "waits for ever", "nearly nothing", "computes for ever"],
)
def test_stuck(seen, stuck):
    assert first_stuck(seen) == stuck


def test_time_counts_from_the_last_progress():
    idle = looks(1000, busy=False)
    waits = [Look(1000 + look.at, True, 7, 3) for look in looks(100)]
    assert first_stuck(idle + waits) == 1030
