"""Sessions whose time is over leave the database, a bounded number at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from accounts import old_sessions, sweeps


def make_sessions(count: int, hours: int) -> None:
    expire_date = timezone.now() + timedelta(hours=hours)
    Session.objects.bulk_create(
        Session(session_key=f"{hours}-{number}", session_data="", expire_date=expire_date) for number in range(count)
    )


@pytest.mark.django_db
def test_what_is_over_goes_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_sessions, "BATCH", 2)
    monkeypatch.setattr(old_sessions, "BATCHES", 3)
    make_sessions(7, -1)
    make_sessions(2, 1)
    old_sessions.clean_up()
    assert Session.objects.count() == 1 + 2
    old_sessions.clean_up()
    assert sorted(Session.objects.values_list("session_key", flat=True)) == ["1-0", "1-1"]


def test_the_supervisor_sees_to_it() -> None:
    assert old_sessions.clean_up in sweeps.SWEEPS


def test_the_supervisor_knows_their_table() -> None:
    """It runs with few of the applications only."""
    environment = {**os.environ, "LLM_PROCESS": "supervisor", "DJANGO_SETTINGS_MODULE": "llmplatform.settings"}
    code = "import django; django.setup(); from models_app import supervisor"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
