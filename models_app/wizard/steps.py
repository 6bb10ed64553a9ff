"""The line of steps at the top of each page, and their addresses."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from models_app.wizard.choice import Choice

CHOOSE, FITS, SETTINGS, START = range(1, 5)
TITLES = {CHOOSE: _("Choose"), FITS: _("What fits"), SETTINGS: _("Settings"), START: _("Start")}
NAMES = {CHOOSE: "add", FITS: "fits", SETTINGS: "settings", START: "start"}


@dataclass(frozen=True)
class Step:
    number: int
    title: str
    url: str  # "" where one cannot go from here
    current: bool
    past: bool


def url(step: int) -> str:
    return reverse(f"admin:models_app_modelconfig_{'wizard_' if step != CHOOSE else ''}{NAMES[step]}")


def url_of(step: int, choice: Choice, fit: str = "") -> str:
    return f"{url(step)}?{choice.address(**({'fit': fit} if fit else {}))}"


def steps(current: int, choice: Choice | None = None, fit: str = "") -> list[Step]:
    """Those before the current one can be gone back to, until the model is added. ``fit``: what was chosen in the second."""

    def back(number: int) -> str:
        if number >= current or choice is None:
            return ""
        return url(CHOOSE) if number == CHOOSE else url_of(number, choice, fit)

    return [
        Step(number, str(title), back(number), number == current, number < current) for number, title in TITLES.items()
    ]
