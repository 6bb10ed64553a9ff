"""Notice that the process which started this one has ended, however it ended.

``manage.py serve`` gives each child the read end of a pipe as standard input and keeps the write end open. When it goes, even by
``kill -9``, the system closes the write end and the child reads end of file. Works alike on Linux, macOS and Windows.

A child that starts processes of its own must not pass its standard input on to them (``stdin=subprocess.DEVNULL``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

VARIABLE = "LLM_PARENT_PIPE"


def watch(on_gone: Callable[[], None], descriptor: int = 0) -> threading.Thread | None:
    """Call ``on_gone`` once, in a daemon thread, when the parent has ended. Nothing happens when no parent gave us a pipe."""
    if not os.environ.get(VARIABLE):
        return None
    thread = threading.Thread(target=_wait, args=(on_gone, descriptor), name="parent-watch", daemon=True)
    thread.start()
    return thread


def _wait(on_gone: Callable[[], None], descriptor: int) -> None:
    try:
        while os.read(descriptor, 1024):
            pass
    except OSError:  # a broken pipe says the same as its end
        pass
    on_gone()
