"""What the last synchronisation with model_config.json did, kept in ``run/`` for the console."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from models_app.config_file import Problem


@dataclass
class SyncReport:
    """What a synchronisation did. ``problems`` are (line, reason) pairs."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)  # "model: key", changed on both sides since they last agreed
    problems: list[Problem] = field(default_factory=list)
    written: bool = False
    written_back: list[str] = field(default_factory=list)  # models whose changes the file had not got yet


def keep(report: SyncReport) -> None:
    """That it cannot be kept stops nothing."""
    with contextlib.suppress(OSError):
        text = json.dumps({**asdict(report), "at": timezone.now().isoformat()}, ensure_ascii=False)
        scratch = _path().with_suffix(".new")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(_path())


def last() -> dict[str, Any] | None:
    """As ``SyncReport``, and ``at``; None when there is none."""
    try:
        found = json.loads(_path().read_text(encoding="utf-8"))
        return {**found, "at": datetime.fromisoformat(found["at"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path() -> Path:
    folder: Path = settings.RUN_DIR
    return folder / "model_config_sync.json"
