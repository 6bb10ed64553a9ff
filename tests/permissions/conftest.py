from __future__ import annotations

from typing import Any

import pytest
from django.core.cache import cache

from accounts import callers
from cluster import probe
from models_app import supervisor_lock
from tests.permissions.world import CLUSTER_TOKEN, World, make_world


@pytest.fixture
def world(db: None, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    settings.CLUSTER_TOKEN = CLUSTER_TOKEN
    settings.METRICS_ALLOW = []
    settings.REGISTRATION = "open"
    settings.RUN_DIR, settings.LOG_DIR, settings.MODELS_PATH = tmp_path / "run", tmp_path / "logs", tmp_path
    settings.STATIC_ROOT = tmp_path
    settings.MODEL_CONFIG_PATH = tmp_path / "model_config.json"
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(probe, "probe", lambda *_arguments, **_more: None)
    monkeypatch.setattr(supervisor_lock, "holder", lambda: "a supervisor lives")
    cache.clear()
    callers.forget_everything()
    return make_world()
