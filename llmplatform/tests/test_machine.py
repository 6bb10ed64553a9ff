"""Names of this machine, its processes, and the terminal's language."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from llmplatform.lib import early_messages, host_names, process_identity


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def test_a_process_is_the_same_until_it_ends(sleeper):
    started = process_identity.started_at(sleeper.pid)
    assert started is not None
    assert process_identity.is_same(sleeper.pid, started)
    assert not process_identity.is_same(sleeper.pid, started - 100)  # the pid was somebody else's then
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, not yet reaped
    assert not process_identity.is_same(sleeper.pid, started)


def test_an_identity_is_gone_when_its_process_is(sleeper):
    started = process_identity.started_at(sleeper.pid)
    identity = f"{socket.gethostname()}:{sleeper.pid}:{started:.2f}"
    assert not process_identity.is_gone(identity)
    assert not process_identity.is_gone(process_identity.own_identity())
    sleeper.kill()
    sleeper.wait()
    assert process_identity.is_gone(identity)


@pytest.mark.skipif(not psutil.LINUX, reason="elsewhere the kernel keeps the time of day itself")
def test_a_clock_that_is_set_changes_nobody(sleeper, monkeypatch):
    """psutil counts from the machine's start by the wall clock, as that start looks at the moment."""
    started = process_identity.started_at(sleeper.pid)
    identity = f"{socket.gethostname()}:{sleeper.pid}:{started:.2f}"
    boot = psutil.boot_time()
    for name in ("boot_time", "BOOT_TIME"):
        if hasattr(psutil._pslinux, name):
            monkeypatch.setattr(psutil._pslinux, name, (lambda: boot - 5000) if name.islower() else boot - 5000)
    assert process_identity.is_same(sleeper.pid, started)
    assert not process_identity.is_gone(identity)


def test_somebody_elses_machine_is_not_judged():
    assert not process_identity.is_gone("another-machine:1:1.00")


def test_own_host_names_are_ours_and_no_wildcard():
    names = host_names.own_host_names()
    assert {"localhost", "127.0.0.1", "[::1]"} <= set(names)
    assert socket.gethostname().lower() in names
    assert "*" not in names
    assert all(name == name.lower() for name in names)


def test_own_addresses_are_for_others():
    assert not any(
        address.startswith(("127.", "169.254.", "fe80:")) or address == "::1" for address in host_names.own_addresses()
    )


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh-hans"),
        ({"LANG": "en_GB.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "LC_MESSAGES": "zh_CN"}, "zh-hans"),
        ({}, "en"),
    ],
)
def test_the_terminals_language(monkeypatch, variables, language):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert early_messages.terminal_language() == language


def test_a_message_without_translation_stays():
    assert early_messages.translate("no such message") == "no such message"
