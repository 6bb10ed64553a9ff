"""Settings that changed since the last start stand in the audit log, secrets only as changed."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from llmplatform.lib import audit
from llmplatform.lib.audit import CHANGED, Event
from llmplatform.lib.configuration import EnvFile, Settings
from llmplatform.service import settings_audit

FIRST = {
    "REGISTRATION": "open",
    "TOKEN_RATE": "0.001",
    "JWT_SECRET": "first-secret-of-some-length",
    "DATABASE_URL": "postgres://llm:first-password@db/llm",
    "REDIS_URL": "redis://cache/0",
}
SECOND = {
    **FIRST,
    "REGISTRATION": "closed",
    "TOKEN_RATE": "0.002",
    "JWT_SECRET": "second-secret-of-some-length",
    "DATABASE_URL": "postgres://llm:second-password@db/llm",
    "REDIS_URL": "redis://:second-password@cache/0",
}


@pytest.fixture
def told(settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    settings.RUN_DIR = tmp_path
    events: list[Event] = []
    monkeypatch.setattr(audit, "_sink", events.extend)
    return events


def test_what_changed_between_two_starts_is_told_once(told: list[Event], tmp_path: Path):
    settings_audit.note(FIRST)
    settings_audit.note(FIRST)
    assert told == []
    settings_audit.note(SECOND)
    settings_audit.note(SECOND)
    (event,) = told
    assert event.action == "settings.update"
    assert event.changes == {
        "REGISTRATION": ["open", "closed"],
        "TOKEN_RATE": ["0.001", "0.002"],
        "JWT_SECRET": CHANGED,
        "DATABASE_URL": CHANGED,
        "REDIS_URL": CHANGED,
    }


def test_what_is_kept_for_the_next_start_holds_no_secret(told: list[Event], tmp_path: Path):
    settings_audit.note(SECOND)
    path = tmp_path / "settings-seen.json"
    assert "second" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "rubbish",
    ["", "[]", "{}", '{"salt": 1}', '{"salt": "a", "settings": [1]}', '{"salt": "a", "settings": {"A": "x"}}', "\x00"],
)
def test_a_damaged_file_is_made_anew(told: list[Event], tmp_path: Path, rubbish: str):
    path = tmp_path / "settings-seen.json"
    path.write_text(rubbish)
    settings_audit.note(FIRST)
    assert json.loads(path.read_text())["settings"]["REGISTRATION"] == {"value": "open"}
    settings_audit.note(SECOND)
    assert len(told) == 1


def test_all_settings_that_were_read_are_known():
    found = Settings(EnvFile(None, {"A": " x ", "B": "unused"}), {})
    found.text("A")
    found.integer("C", 5)
    assert found.read == {"A": "x", "C": ""}
    assert {"REGISTRATION", "JWT_SECRET", "DATABASE_URL"} <= set(django_settings.READ_SETTINGS)
