"""Rows of browsers' sessions whose time is over. Django itself never deletes them."""

from __future__ import annotations

from django.contrib.sessions.models import Session
from django.utils import timezone

BATCH = 500  # in one transaction
BATCHES = 10  # in one call; what remains comes with the next


def clean_up() -> None:
    """Oldest first, found by the index on the time."""
    over = Session.objects.filter(expire_date__lt=timezone.now()).order_by("expire_date").values_list("pk", flat=True)
    for _number in range(BATCHES):
        keys = list(over[:BATCH])
        Session.objects.filter(pk__in=keys).delete()
        if len(keys) < BATCH:
            break
