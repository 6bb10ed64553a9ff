"""The search: from llama-server's defaults, one setting after the other, keeping what helps. Pure: it is a generator that yields
what to measure next and is sent the figures, so that it can be tried on made-up ones.

The defaults are measured first and, with the best found, last again. They win unless the best one is better by more than the
noise: what such measurements differ by anyway, or more when the defaults' own differed by more.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any

from models_app.tuning.candidates import MEMORY, Axis, Setting, with_value

NOISE = 0.05
NOISE_OF_MEMORY = 0.02
CONFIRM = 2  # measurements that are kept for the end
KEPT_SPEED = 0.9  # of the defaults', where little memory is the aim


@dataclass(frozen=True)
class Figure:
    """``speed`` in tokens per second, ``slowest`` of one person; ``memory`` in bytes."""

    speed: float
    slowest: float
    memory: int


@dataclass
class Row:
    """One candidate. ``problem``: why there are no figures."""

    setting: Setting
    figures: list[Figure] = field(default_factory=list)
    problem: dict[str, Any] | None = None

    @property
    def speed(self) -> float:
        return statistics.fmean(figure.speed for figure in self.figures) if self.figures else 0.0

    @property
    def slowest(self) -> float:
        return statistics.fmean(figure.slowest for figure in self.figures) if self.figures else 0.0

    @property
    def memory(self) -> int:
        return max((figure.memory for figure in self.figures), default=0)


@dataclass
class Outcome:
    """``gain``: how much better ``chosen`` is than the defaults, by the aim; 1 when these were best."""

    chosen: Row
    defaults: Row
    gain: float
    rows: list[Row]


Problem = dict[str, Any]
Search = Generator[Setting, "Figure | Problem", Outcome]


class NothingToMeasure(Exception):
    """Not even the defaults could be measured. ``reason`` says why."""

    def __init__(self, reason: Problem) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Searcher:
    """``enough_time(n)``: whether n more measurements may be made."""

    aim: str
    clients: int
    enough_time: Callable[[int], bool]
    rows: list[Row] = field(default_factory=list)

    def run(self, start: Setting, known: Iterable[Setting], axes: Iterable[Axis]) -> Search:
        """``known``: settings worth a look besides, such as those the model has now. Raises NothingToMeasure."""
        base = yield from self._measure(start)
        if base.problem is not None:
            raise NothingToMeasure(base.problem)
        best = base
        for setting in known:
            best = yield from self._try(setting, best, base)
        for name, values in axes:
            for value in values:
                best = yield from self._try(with_value(best.setting, name, value, self.clients), best, base)
        if best is not base and self.enough_time(CONFIRM):
            yield from self._measure(best.setting)
        yield from self._measure(start)
        return self._decide(base, best)

    def _try(self, setting: Setting, best: Row, base: Row) -> Generator[Setting, Figure | Problem, Row]:
        if any(row.setting == setting for row in self.rows) or not self.enough_time(1 + CONFIRM):
            return best
        row = yield from self._measure(setting)
        ratio = self.score(row, base) / self.score(best, base)
        if 1 < ratio < 1 + 2 * self.noise and self.enough_time(1 + CONFIRM):
            yield from self._measure(setting)
            ratio = self.score(row, base) / self.score(best, base)
        return row if ratio > 1 + self.noise / 2 else best

    def _measure(self, setting: Setting) -> Generator[Setting, Figure | Problem, Row]:
        row = next((row for row in self.rows if row.setting == setting), None)
        if row is None:
            row = Row(setting)
            self.rows.append(row)
        answer = yield setting
        if isinstance(answer, Figure):
            row.figures.append(answer)
        else:
            row.problem = answer
        return row

    def _decide(self, base: Row, best: Row) -> Outcome:
        gain = self.score(best, base) / self.score(base, base)
        # What was seen only once may have been luck.
        sure = best is not base and len(best.figures) > 1 and best.problem is None
        if not sure or gain <= 1 + max(self.noise, self._spread(base)):
            return Outcome(base, base, 1.0, self.rows)
        return Outcome(best, base, gain, self.rows)

    def _spread(self, base: Row) -> float:
        speeds = [figure.speed for figure in base.figures]
        return 0.0 if self.aim == MEMORY else (max(speeds) - min(speeds)) / base.speed

    @property
    def noise(self) -> float:
        return NOISE_OF_MEMORY if self.aim == MEMORY else NOISE

    def score(self, row: Row, base: Row) -> float:
        """Higher is better; 0 for what cannot be had."""
        if not row.figures or row.problem is not None:
            return 0.0
        if self.aim != MEMORY:
            return row.speed
        return 1 / row.memory if row.memory and row.speed >= KEPT_SPEED * base.speed else 0.0
