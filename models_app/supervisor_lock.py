"""At most one supervisor in a folder, and how others learn which."""

from __future__ import annotations

import json
import os
from typing import Any

from django.conf import settings
from filelock import FileLock, Timeout

from llmplatform.lib import process_identity


def acquire() -> FileLock | None:
    """The lock, held until the process ends; None when another supervisor has it. Raises OSError for an unwritable folder."""
    settings.RUN_DIR.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.RUN_DIR / "supervisor.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    pid = os.getpid()
    note = settings.RUN_DIR / "supervisor.json.new"
    note.write_text(json.dumps({"pid": pid, "started": process_identity.started_at(pid)}))
    note.replace(settings.RUN_DIR / "supervisor.json")
    return lock


def holder() -> dict[str, Any] | None:
    """``{"pid", "started"}`` of the running supervisor, None when there is none."""
    try:
        note = json.loads((settings.RUN_DIR / "supervisor.json").read_text())
        return note if process_identity.is_same(note["pid"], note["started"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
