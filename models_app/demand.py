"""How much models that are started when asked for are wanted: each process reports for itself, the supervisor reads the sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from models_app.models import Demand, ModelConfig

HOLDS = 6.0  # seconds; whoever has something waiting or under way reports again before that
PRELOAD_HOLDS = 60.0
PRELOAD = "start"  # stands for the process where a person asked, and no request
KEPT = 86400.0  # seconds; longer than any process that reports is silent


@dataclass(frozen=True)
class Report:
    """Of one model in one process; times are seconds ago."""

    waiting: int = 0
    first_waiting: float = 0.0
    under_way: int = 0
    used: float = 0.0


@dataclass(frozen=True)
class Asked:
    """Of one model, by all; times are seconds ago."""

    waiting: float | None = None  # the first of those that wait
    busy: bool = False
    idle: float = float("inf")


def report(process: str, reports: Mapping[int, Report], holds: float = HOLDS) -> None:
    """By model. One query."""
    now = timezone.now()
    rows = [
        Demand(
            model_id=model,
            process=process,
            waiting=one.waiting,
            waiting_since=now - timedelta(seconds=one.first_waiting) if one.waiting else None,
            under_way=one.under_way,
            used_at=now - timedelta(seconds=one.used),
            holds_until=now + timedelta(seconds=holds),
        )
        for model, one in reports.items()
    ]
    written = ["waiting", "waiting_since", "under_way", "used_at", "holds_until"]
    Demand.objects.bulk_create(rows, update_conflicts=True, unique_fields=["model", "process"], update_fields=written)


def preload(model: ModelConfig) -> None:
    """As if a request waited for it for a while."""
    report(PRELOAD, {model.pk: Report(waiting=1)}, PRELOAD_HOLDS)


def no_preload(model: ModelConfig) -> None:
    Demand.objects.filter(model=model, process=PRELOAD).delete()


def asked() -> dict[int, Asked]:
    """By model; those that nobody ever asked for are missing. One query."""
    now, found = timezone.now(), dict[int, Asked]()
    for row in Demand.objects.all():
        alive = row.holds_until > now
        before = found.get(row.model_id, Asked())
        waits = (now - row.waiting_since).total_seconds() if alive and row.waiting_since is not None else None
        found[row.model_id] = Asked(
            waiting=max((one for one in (before.waiting, waits) if one is not None), default=None),
            busy=before.busy or (alive and row.under_way > 0),
            idle=min(before.idle, (now - row.used_at).total_seconds()),
        )
    return found


def forget_old() -> None:
    """What processes that ended long ago have left."""
    Demand.objects.filter(holds_until__lt=timezone.now() - timedelta(seconds=KEPT)).delete()
