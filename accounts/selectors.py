"""Reads: who has which name, and pages of usage and ledger."""

from __future__ import annotations

from django.db.models import Q, Value
from django.db.models.functions import Lower

from accounts.models import User


def users_named(name: str) -> list[User]:
    """Accounts with this user name or email address, ignoring case; the one with the user name first. At most two."""
    wanted = Lower(Value(name))
    rows = (
        User.objects.alias(lower_name=Lower("username"), lower_email=Lower("email"))
        .filter(Q(lower_name=wanted) | Q(lower_email=wanted))
        .exclude(username="")[:3]
    )
    return sorted(rows, key=lambda user: user.username.lower() != name.lower())
