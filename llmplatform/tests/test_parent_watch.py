"""A child learns of its parent's end by end of file on the pipe."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from llmplatform.lib import parent_watch


def test_the_end_of_the_pipe_is_told_once(monkeypatch):
    monkeypatch.setenv(parent_watch.VARIABLE, "1")
    read_end, write_end = os.pipe()
    calls: list[int] = []
    gone = threading.Event()
    thread = parent_watch.watch(lambda: (calls.append(1), gone.set()), read_end)

    assert thread is not None
    os.write(write_end, b"data is no end")
    assert not gone.wait(0.1)
    os.close(write_end)
    assert gone.wait(5)
    thread.join(5)
    assert calls == [1]
    os.close(read_end)


def test_without_a_parents_pipe_nothing_is_watched(monkeypatch):
    monkeypatch.delenv(parent_watch.VARIABLE, raising=False)
    assert parent_watch.watch(lambda: None) is None


def test_a_killed_parent_is_noticed():
    """The parent starts a child with a pipe and is killed; the child prints before it ends."""
    child = "import threading\nfrom llmplatform.lib import parent_watch\ndone = threading.Event()\nparent_watch.watch(done.set)\nprint('ready', flush=True)\ndone.wait()\nprint('gone', flush=True)"
    parent = (
        "import os, subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, env={{**os.environ, 'LLM_PARENT_PIPE': '1'}})\n"
        "p.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.stdout.readline() == "gone\n"
    process.stdout.close()
    process.wait()
