"""``manage.py stop``: end the ``serve`` of this folder, and nothing else."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from llmplatform.lib.early_messages import translate as _
from llmplatform.service import run_folder
from llmplatform.service.terminal import complain, say

PATIENCE = 20.0  # serve itself ends its children within 10 s


def stop(home: Path) -> int:
    running = run_folder.read(home)
    if running is None:
        say(_("The service does not run in this folder."))
        return 3
    # On Windows this ends serve at once; its children see the pipe close and end in order.
    os.kill(running.pid, signal.SIGTERM)
    started = time.monotonic()
    while running.alive() or any(child.alive() for child in running.children.values()):
        if time.monotonic() - started > PATIENCE:
            complain(_("Process %(pid)d does not end; look at logs/llm-app.log.") % {"pid": running.pid})
            return 1
        time.sleep(0.05)
    say(_("Stopped (process %(pid)d).") % {"pid": running.pid})
    return 0
