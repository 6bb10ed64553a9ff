"""Engines that run although no supervisor does, since all of ours were killed at once."""

from __future__ import annotations

from collections.abc import Collection

from models_app import process, supervisor_lock
from models_app.models import Replica


def end_left_engines(models: Collection[str]) -> bool:
    """Ends the engines of these models in the supervisor's stead. False when there is a supervisor, who will do it."""
    lock = supervisor_lock.acquire()
    if lock is None:
        return False
    try:
        rows = {row.pk: row for row in Replica.objects.filter(model__name__in=models)}
        for found in process.find_engines():
            if found.replica_id in rows:
                found.process.end()
        Replica.objects.filter(pk__in=rows).delete()
    finally:
        lock.release()
    return True
