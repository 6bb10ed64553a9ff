"""Bars as plain SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

COLOURS = {"cost": "#2563eb", "hash": "#9ca3af", "round_robin": "#d1d5db"}
LEFT, WIDTH, BAR, GAP, TOP, MOST = 340, 420, 7, 9, 56, 1.5


class Figures(Protocol):
    scenario: str
    policy: str
    p95: float


def bars(rows: Sequence[Figures]) -> str:
    """Each policy's 95th percentile by that of ``least_busy``, the line at 1."""
    found = {(row.scenario, row.policy): row.p95 for row in rows}
    names = list(dict.fromkeys(row.scenario for row in rows))
    each = len(COLOURS) * BAR + GAP
    height = TOP + len(names) * each + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 40}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="100%" height="100%" fill="#fff"/><text x="{LEFT}" y="18">Time to the first token, 95th percentile, '
        "by that of least_busy</text>",
    ]
    for place, (policy, colour) in enumerate(COLOURS.items()):
        x = LEFT + 110 * place
        parts.append(
            f'<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/><text x="{x + 14}" y="37">{policy}</text>'
        )
    for number, name in enumerate(names):
        y = TOP + number * each
        parts.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        for place, (policy, colour) in enumerate(COLOURS.items()):
            ratio = found[name, policy] / found[name, "least_busy"]
            width = WIDTH * min(ratio, MOST) / MOST
            parts.append(
                f'<rect x="{LEFT}" y="{y + place * BAR}" width="{width:.1f}" height="{BAR - 1}" fill="{colour}"/>'
            )
            if policy == "cost":
                parts.append(f'<text x="{LEFT + width + 4:.1f}" y="{y + 7}" font-size="9">{ratio:.2f}</text>')
    bottom = TOP + len(names) * each
    for tick in (0.5, 1.0, 1.5):
        x = LEFT + WIDTH * tick / MOST
        colour = "#dc2626" if tick == 1 else "#e5e7eb"
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP - 6}" y2="{bottom}" stroke="{colour}" stroke-dasharray="3 3"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    return "\n".join([*parts, "</svg>", ""])
