"""Bar charts as SVG: positions in per cent across, so that a chart is as wide as its card, in pixels upwards. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEIGHT = 132  # of the tallest bar; the labels stand below it
GAP = 0.28  # of a bar's place


@dataclass(frozen=True)
class Bar:
    x: str
    width: str
    y: str
    height: str
    label: str
    tip: str
    label_x: str
    anchor: str  # labels at the edges stay inside


@dataclass(frozen=True)
class Chart:
    bars: tuple[Bar, ...]
    top: str
    summary: str


def _percent(value: float) -> str:
    return f"{value:.3f}%"


def bars(values: Sequence[int], labels: Sequence[str], tips: Sequence[str], *, top: str, summary: str) -> Chart | None:
    """A bar for each value. None when there is nothing to show: no traffic is not a chart of zeros."""
    highest = max(values, default=0)
    if not highest:
        return None
    place = 100 / len(values)
    made = []
    for index, (value, label, tip) in enumerate(zip(values, labels, tips, strict=True)):
        tall = max(2.0, value / highest * HEIGHT) if value else 0.0
        made.append(
            Bar(
                x=_percent(place * (index + GAP / 2)),
                width=_percent(place * (1 - GAP)),
                y=f"{HEIGHT - tall + 4:.1f}",
                height=f"{tall:.1f}",
                label=label,
                tip=tip,
                label_x=_percent(
                    place * (index + (GAP / 2 if index == 0 else 1 - GAP / 2 if index == len(values) - 1 else 0.5))
                ),
                anchor="start" if index == 0 else "end" if index == len(values) - 1 else "middle",
            )
        )
    return Chart(tuple(made), top, summary)
