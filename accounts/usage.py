"""Deletes usage records that are older than they are to be kept. Sums by the hour and the ledger are never deleted."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from accounts.models import UsageRecord

logger = logging.getLogger(__name__)

BATCH = 500  # rows in one transaction: on SQLite nobody else can write meanwhile, for some hundredths of a second
SECONDS = 1.0  # of one call


def clean_up(seconds: float = SECONDS) -> int:
    """Delete what is due, for so long at most; what remains comes with the next call. Returns how many rows went.

    Between batches it waits as long as the last one took, so that whoever else wants to write gets in.
    """
    if not settings.USAGE_RETENTION_DAYS:
        return 0
    before = timezone.now() - timedelta(days=settings.USAGE_RETENTION_DAYS)
    end = time.monotonic() + seconds
    deleted = 0
    while True:
        began = time.monotonic()
        count = _delete_batch(before)
        deleted += count
        took = time.monotonic() - began
        if count < BATCH or time.monotonic() + took >= end:
            break
        time.sleep(took)
    if deleted:
        logger.info("deleted %d usage records from before %s", deleted, before.date().isoformat())
    return deleted


def _delete_batch(before: datetime) -> int:
    """Oldest first, found by the index on the time; each call is a transaction of its own."""
    old = UsageRecord.objects.filter(created_at__lt=before).order_by("created_at").values_list("pk", flat=True)
    ids = list(old[:BATCH])
    if not ids:
        return 0
    count, _by_model = UsageRecord.objects.filter(pk__in=ids).delete()
    return count
