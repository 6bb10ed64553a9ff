"""Reads about downloads, and what the API and the console show of one."""

from __future__ import annotations

from typing import Any

from django.db.models import F, Q

from models_app.downloads import problems
from models_app.downloads.models import Download

SHOWN = 50
OPEN = ~Q(state__in=Download.FINAL) | Q(tries__lt=F("tries_wanted"))


def recent() -> list[Download]:
    """The newest first; one query."""
    return list(Download.objects.all()[:SHOWN])


def open_downloads() -> list[Download]:
    """Those the worker has to do something about, oldest first."""
    failed_and_given_up = Q(state=Download.State.FAILED, cancelled=True)
    return list(Download.objects.filter(OPEN | failed_and_given_up).order_by("pk"))


def shown(download: Download) -> dict[str, Any]:
    """One download as the API answers it."""
    return {
        "id": download.pk,
        "source": download.what,
        "origin": download.origin or "auto",
        "hub": download.hub or None,
        "files": [file["name"] for file in download.files],
        "licence": download.licence or None,
        "state": "waiting" if download.tries < download.tries_wanted else download.state,
        "cancelled": download.cancelled,
        "size": download.size,
        "fetched": download.fetched,
        "speed": download.speed,
        "reason": problems.text(download.reason) or None,
        "code": (download.reason or {}).get("code"),
        "modelName": download.model_name or None,
        "created": download.created_at.isoformat(),
        "changed": download.changed_at.isoformat(),
    }
