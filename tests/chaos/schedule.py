"""What goes wrong when: a list made from a seed, so that what failed can be looked at again. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

MEAN_GAP = 1.2  # seconds
LEAST_GAP, LONGEST_GAP = 0.05, 5.0  # several within one recovery, and sometimes a moment of rest
PATIENT = 0.6  # of all events: else hardly any would meet a service that is up
# How often each thing happens in one round. They come in an order of chance, all of them before any comes a second time.
ROUND = {
    # who ends without warning, is asked to end, or does nothing for some seconds
    "kill engine": 4,
    "term engine": 1,
    "freeze engine": 1,
    "kill web": 1,
    "term web": 1,
    "freeze web": 1,
    "kill supervisor": 2,
    "term supervisor": 1,
    "freeze supervisor": 1,
    "kill serve": 1,
    "term serve": 1,
    "kill all": 1,
    "kill all but engines": 1,
    # what people want
    "change by API": 4,
    "change by file": 2,
    "switch by API": 2,
    "switch by file": 1,
    "restart by API": 1,
    "go back by API": 1,
    "add or remove": 2,
    # what happens to files and ports
    "delete file": 1,
    "break file": 1,
    "cut file": 1,
    "take a port": 1,
    "take the port of a killed engine": 1,
}


@dataclass(frozen=True)
class Event:
    """``gap``: seconds after the one before. ``patient``: only when the service is up again. ``pick`` (0 to 1) chooses among
    several things it could hit, ``chance`` anything else."""

    gap: float
    patient: bool
    what: str
    pick: float
    chance: float

    def __str__(self) -> str:
        return f"{self.what} ({'when up' if self.patient else 'at once'}) pick={self.pick:.3f} chance={self.chance:.3f}"


def schedule(seed: int, count: int) -> list[Event]:
    return list(itertools.islice(_forever(random.Random(seed)), count))


def _forever(chance: random.Random) -> Iterator[Event]:
    while True:
        for what in chance.sample(list(ROUND), counts=list(ROUND.values()), k=sum(ROUND.values())):
            gap = min(max(chance.expovariate(1 / MEAN_GAP), LEAST_GAP), LONGEST_GAP)
            yield Event(gap, chance.random() < PATIENT, what, chance.random(), chance.random())
