"""A folder of its own for each test: models, logs, run/ and ports that nobody else uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from models_app import machine
from models_app.tests.gguf_files import make_gguf
from models_app.tests.supervised import bench, model
from tests.ports import free_port

__all__ = ["a_small_machine", "bench", "gguf_file", "home", "model"]


@pytest.fixture(autouse=True)
def a_small_machine(monkeypatch) -> None:
    """What must stay free depends on how much memory there is; tests say how much is."""
    monkeypatch.setattr(machine, "low_mark", lambda: machine.LOW_LEAST)


@pytest.fixture
def home(settings, tmp_path) -> Path:
    """Settings point into a fresh folder, as if the service had been installed there."""
    settings.HOME_DIR = tmp_path
    settings.MODELS_PATH = tmp_path / "models"
    settings.MODEL_CONFIG_PATH = tmp_path / "models" / "model_config.json"
    settings.LOG_DIR = tmp_path / "logs"
    settings.RUN_DIR = tmp_path / "run"
    settings.LLAMA_CPP_PATH = ""
    settings.LLAMA_CPP_PORT = free_port()
    settings.MODELS_PATH.mkdir()
    return tmp_path


@pytest.fixture
def gguf_file(home) -> Path:
    return make_gguf(home / "models" / "small.gguf")
