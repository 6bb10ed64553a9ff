"""Which replicas of a model to start, renew and stop next, so that what runs becomes what is wanted without a failed request.

Pure. A new version is started beside the old one, and an old replica goes when a new one is ready in its stead. A new version
that does not come up leaves the old one where it is. Where memory does not suffice for both, and would without the old one, the
old one goes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """One replica that is not being stopped."""

    number: int
    current: bool  # runs, or is to run, what is wanted now
    ready: bool = False
    failed: bool = False  # it waits for what is wrong to go away
    fits_instead: bool = False  # it failed for want of memory, which an old one has


@dataclass(frozen=True)
class Steps:
    start: int = 0  # how many new ones
    stop: tuple[int, ...] = ()  # after their requests
    renew: tuple[int, ...] = ()  # these serve nobody: they take the new settings where they are


def next_steps(standings: Iterable[Standing], wanted: int, leaving: int = 0) -> Steps:
    """``wanted``: how many should run; ``leaving``: how many are being stopped and still there."""
    every = sorted(standings, key=lambda one: one.number)
    if not wanted:
        return Steps(stop=_numbers(every))
    # Where the new version does not come up, an old replica that fails comes back as what it was.
    stuck = any(one.current and one.failed for one in every)
    old = sorted((one for one in every if not one.current and (one.ready or stuck)), key=lambda one: one.ready)
    renew = [one for one in every if not one.current and one not in old]
    if not old:
        return _without_old(every, renew, wanted)
    stop = old[: max(0, sum(one.ready for one in every) - wanted)]
    if not stop and not leaving and any(one.fits_instead for one in every):
        stop = old[:1]
    left = len(every) - len(stop)
    start = max(0, wanted - left)
    coming = any(not one.ready and one not in old for one in every)
    if left == wanted and len(old) > len(stop) and not coming:
        start = 1  # the next one, beside those it will replace
    return Steps(start, _numbers(stop), _numbers(renew))


def _without_old(every: list[Standing], renew: list[Standing], wanted: int) -> Steps:
    by_use = sorted(every, key=lambda one: (one.ready, not one.failed, -one.number))
    stop = by_use[: max(0, len(every) - wanted)]
    return Steps(max(0, wanted - len(every)), _numbers(stop), _numbers(one for one in renew if one not in stop))


def _numbers(standings: Iterable[Standing]) -> tuple[int, ...]:
    return tuple(sorted(one.number for one in standings))
