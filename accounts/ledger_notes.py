"""Notes of ledger entries: stored without a language, shown in the reader's."""

from __future__ import annotations

from django.utils.translation import gettext as _

STARTING_BALANCE = "DEFAULT_TOKENS"
ALLOWANCE = "allowance"
BY = "by:"


def by(username: str) -> str:
    """The note of what somebody gave without saying why."""
    return f"{BY}{username}"


def in_words(note: str) -> str:
    if note.startswith(BY):
        return _("by %(name)s") % {"name": note.removeprefix(BY)}
    known = {STARTING_BALANCE: _("starting balance"), ALLOWANCE: _("allowance")}
    return known.get(note, note)
