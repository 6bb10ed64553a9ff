"""What ``cluster/stats`` and ``monitoring/system`` show of replicas and usage; registered with ``cluster.live``.

Usage is counted here since ``accounts`` and ``cluster`` do not know each other, and this app may know both.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Count, Sum
from django.utils import timezone

from accounts.models import UsageRecord
from cluster import live
from models_app.models import Replica
from models_app.states import State

MINUTE = timedelta(minutes=1)


def replica_figures() -> dict[str, Any]:
    """Replicas by state, and the slots of those that take requests. One query."""
    rows = list(Replica.objects.order_by().values("state").annotate(number=Count("id"), slots=Sum("slots")))
    return {
        "by_state": {row["state"]: row["number"] for row in rows},
        "slots": sum(row["slots"] for row in rows if row["state"] == State.READY),
    }


def usage_figures() -> dict[str, Any]:
    """Requests and tokens since midnight in the service's time zone, and the speed of the last minute by the requests that
    ended in it. Two queries over the index by time."""
    now = timezone.localtime()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    minute = UsageRecord.objects.filter(created_at__gte=now - MINUTE).aggregate(tokens=Sum("completion_tokens"))
    sums = UsageRecord.objects.filter(created_at__gte=midnight).aggregate(
        requests=Count("id"), prompt=Sum("prompt_tokens"), completion=Sum("completion_tokens")
    )
    return {
        "requests_today": sums["requests"],
        "prompt_tokens_today": sums["prompt"] or 0,
        "completion_tokens_today": sums["completion"] or 0,
        "tokens_per_second": (minute["tokens"] or 0) / MINUTE.total_seconds(),
    }


def engine_processes() -> dict[str, Any]:
    """The llama-servers of this machine as the supervisor recorded them."""
    rows = Replica.objects.filter(pid__isnull=False, pid_started__isnull=False)
    values = rows.values_list("model__name", "number", "pid", "pid_started")
    return {
        "processes": [
            {"name": f"{model}/{number}", "pid": pid, "started": started} for model, number, pid, started in values
        ]
    }


def register() -> None:
    live.register("replicas", replica_figures)
    live.register("usage", usage_figures)
    live.register("engines", engine_processes)
