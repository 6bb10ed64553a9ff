"""``manage.py`` as people use it on a command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_whoever_reads_only_the_beginning_sees_no_traceback() -> None:
    """As with ``manage.py … | head``: the reader is gone before the command writes."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "manage.py", "help"],
            cwd=PROJECT,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == 1
