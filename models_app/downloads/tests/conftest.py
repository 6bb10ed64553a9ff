"""A folder of its own for each test, and a model hub that runs as a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models_app.tests.conftest import home as home
from models_app.tests.gguf_files import make_gguf
from tests import model_hub

TINY = "tests/tiny-GGUF"


@pytest.fixture(scope="session")
def running_hub(tmp_path_factory) -> Iterator[model_hub.Hub]:
    folder: Path = tmp_path_factory.mktemp("hub")
    make_gguf(folder / TINY / "tiny-q4_k_m.gguf", layers=600)  # 2.6 MB
    make_gguf(folder / TINY / "tiny-q8_0.gguf", layers=3)
    (folder / TINY / "README.md").write_text("a model")
    with model_hub.running(folder) as hub:
        yield hub


@pytest.fixture
def hub(running_hub, settings, home) -> model_hub.Hub:
    """Both hubs' endpoints lead to it, and it has no faults."""
    running_hub.fault()
    settings.HF_ENDPOINT = settings.MODELSCOPE_ENDPOINT = running_hub.url
    settings.MODEL_HOSTS = []
    settings.MODEL_HUB = "huggingface"
    settings.HF_TOKEN = settings.MODELSCOPE_API_TOKEN = ""
    return running_hub
