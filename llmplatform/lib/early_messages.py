"""Translated messages for the moments before Django is set up (a broken ``.env``, the parent process).

Same catalogue as Django's, chosen by the terminal's own language.
"""

from __future__ import annotations

import gettext
import os
from functools import cache
from pathlib import Path

LOCALE_DIR = Path(__file__).resolve().parents[2] / "locale"


def terminal_language() -> str:
    """``zh-hans`` when the terminal is set to Chinese, else ``en``."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            return "zh-hans" if value.lower().startswith("zh") else "en"
    return "en"


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    codes = ["zh_Hans"] if language == "zh-hans" else ["en"]
    return gettext.translation("django", str(LOCALE_DIR), languages=codes, fallback=True)


def translate(message: str) -> str:
    return _catalogue(terminal_language()).gettext(message)
