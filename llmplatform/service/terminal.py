"""What ``serve`` shows on the terminal: plain lines, a progress bar where there is a terminal, one box."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

BAR_WIDTH = 30


def say(text: str = "") -> None:
    print(text, flush=True)  # noqa: T201


def complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """A bar that redraws its line on a terminal; elsewhere one line at the start and one at the end."""

    def __init__(self) -> None:
        self._label = ""
        self._finished = False

    def update(self, label: str, done: int, total: int, detail: str = "") -> None:
        """``detail`` stands where the megabytes done stand else."""
        fraction = min(1.0, done / total) if total else 0.0
        if sys.stdout.isatty():
            filled = round(fraction * BAR_WIDTH)
            bar = "█" * filled + "░" * (BAR_WIDTH - filled)
            detail = detail or f"{done / 1e6:.0f} MB"
            print(f"\r{label}  {bar} {fraction:4.0%}  {detail:<10}", end="", flush=True)  # noqa: T201
            if fraction >= 1 and not self._finished:
                say()
        elif label != self._label:
            say(f"{label} …")
        self._label = label
        self._finished = fraction >= 1


def width(text: str) -> int:
    """Columns a terminal needs: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def padded(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def box(title: str, lines: Sequence[str]) -> str:
    inner = max(width(text) for text in [f" {title} ", *lines]) + 2
    top = f"╭─ {title} " + "─" * (inner - width(title) - 3) + "╮"
    body = [f"│ {line}" + " " * (inner - width(line) - 1) + "│" for line in lines]
    return "\n".join([top, *body, "╰" + "─" * inner + "╯"])
