"""A child learns of its parent's end by end of file on the pipe."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from llmplatform.lib import parent_watch

CHILD = """
import threading
from llmplatform.lib import parent_watch
done = threading.Event()
parent_watch.watch(done.set)
print("ready", flush=True)
done.wait()
print("gone", flush=True)
"""

PARENT = """
import os, subprocess, sys
environment = {**os.environ, "LLM_PARENT_PIPE": "1"}
subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, env=environment).wait()
"""


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
    process = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    assert process.stdout.readline() == "gone\n"
    process.stdout.close()
    process.wait()
