"""What running replicas take, recorded beside what was planned, and the most of it kept for the next plan. The supervisor calls
this; nothing else writes what is written here."""

from __future__ import annotations

from functools import lru_cache

from models_app.models import MemoryMeasurement, Replica
from models_app.process import EngineProcess
from models_app.states import State

NOTABLE = 1024 * 1024  # bytes; smaller changes are not worth a write
ROWS_KEPT = 1000


def learned() -> dict[str, int]:
    """Bytes by key. One query."""
    return dict(MemoryMeasurement.objects.values_list("key", "measured"))


def measure(node: str, known: dict[str, int]) -> None:
    """Looks at every ready replica of this machine. ``known`` is ``learned()`` and kept up to date. Raises what the database
    raises."""
    ready = Replica.objects.filter(node=node, state=State.READY, pid__isnull=False, pid_started__isnull=False)
    for row in ready.exclude(memory_key=""):
        resident = _resident(row.pid or 0, row.pid_started or 0.0)
        if resident is None:
            continue
        if abs(resident - (row.memory_measured or 0)) >= NOTABLE:
            Replica.objects.filter(pk=row.pk).update(memory_measured=resident)
        if resident >= known.get(row.memory_key, 0) + NOTABLE:
            MemoryMeasurement.objects.update_or_create(key=row.memory_key, defaults={"measured": resident})
            known[row.memory_key] = resident
            _forget_oldest()


@lru_cache(maxsize=256)
def _engine(pid: int, started: float) -> EngineProcess:
    """Remembered, since finding out what a process has started is a look at all there are."""
    return EngineProcess(pid, started)


def _resident(pid: int, started: float) -> int | None:
    """Bytes; None when it is gone."""
    return _engine(pid, started).resident() or None


def _forget_oldest() -> None:
    rows = MemoryMeasurement.objects.order_by("-updated_at", "-pk")
    last = rows.values_list("updated_at", flat=True)[ROWS_KEPT : ROWS_KEPT + 1].first()
    if last is not None:
        MemoryMeasurement.objects.filter(updated_at__lte=last).delete()
