"""A service for clients: the starter model with tools, and the same file as a model that makes vectors."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.environment import clients_python
from tests.running_service import PROJECT, Service, put_starter_model, running, wait_for

HERE = Path(__file__).parent
SECONDS = 150
OURS, APART = "ours", "apart"  # the environment that a script runs in
Results = dict[str, str]  # of each function: empty, or how it failed
Run = Callable[[str, str], Results]

CHAT, VECTORS = "smollm2-135m-instruct", "embeddings"
STARTER = {"modelFile": "SmolLM2-135M-Instruct.Q4_1.gguf", "slots": 2}
ENTRIES = [
    {**STARTER, "modelName": CHAT, "contextLength": 2048, "maxTokens": 128},
    {**STARTER, "modelName": VECTORS, "contextLength": 256, "embeddings": True},
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("clients") / "home"
    put_starter_model(home / "models")
    template = (HERE / "tools.jinja").read_text(encoding="utf-8")
    entries = [{**ENTRIES[0], "chatTemplate": template}, ENTRIES[1]]
    (home / "models" / "model_config.json").write_text(json.dumps({"models": entries}))
    with running(home, starter=False) as started:
        for name in (CHAT, VECTORS):
            wait_for(lambda name=name: started.model_is_ready(name), f"{name} is ready", 60)
        yield started


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    with service.client() as own:
        return str(own.post("/api/v1/keys", json={"name": "clients"}).json()["key"])


@pytest.fixture(scope="module")
def run(service: Service, key: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What became of each function of a client's script; each script is run once."""
    nothing = tmp_path_factory.mktemp("nobody")

    @functools.cache
    def run_once(name: str, place: str) -> Results:
        python = clients_python() if place == APART else sys.executable
        script, document = HERE / "scripts" / "run.py", PROJECT / "docs" / "clients.md"
        done = subprocess.run(
            [python, script, name, service.base_url, key, document],
            cwd=nothing,
            # Neither settings nor caches of whoever runs the tests.
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(nothing), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        results: Results = json.loads(done.stdout.splitlines()[-1])
        return results

    return run_once
