"""The memory plan against the engine: several architectures and formats, after a first request of full length."""

from __future__ import annotations

import os

import pytest
from django.conf import settings as project

from models_app import process, services
from models_app.launchers.local import LocalLauncher
from models_app.preparation import Circumstances, prepare
from models_app.selectors import wanted_models
from models_app.tests.random_models import SHAPES, random_model
from models_app.tests.test_engine_settings import FILE, Asked, until_healthy
from tests.running_service import put_starter_model

pytestmark = [pytest.mark.e2e, pytest.mark.django_db]
CONTEXT = 512


def resident_after_a_long_request(home, fields) -> tuple[int, int]:
    """Bytes: planned and measured."""
    services.create_model({"name": "m", "context_length": CONTEXT, "slots": 4, "prompt_cache": 0, **fields})
    [model] = wanted_models()
    prepared = prepare(model.wanted, Circumstances())
    nonce, log = process.new_nonce(), home / "engine.log"
    started = LocalLauncher().start(model.wanted, prepared.chosen, 1, nonce, log)
    asked = Asked(f"http://127.0.0.1:{prepared.chosen.port}", process.engine_key(nonce), log, started.process.pid)
    try:
        until_healthy(asked, started.process)
        tokens = [300 + position * 7 % 1000 for position in range(CONTEXT - 16)]
        if fields.get("embeddings"):
            asked.post("/v1/embeddings", input=[tokens])
        else:
            asked.post("/completion", prompt=tokens, n_predict=4, ignore_eos=True)
        return prepared.plan.need.resident, asked.resident()
    finally:
        started.process.end()


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_plan_is_within_a_tenth(home, name):
    path = random_model(SHAPES[name])
    os.link(path, project.MODELS_PATH / path.name)
    fields = {"embeddings": True, "slots": 1} if name == "bert" else {}
    planned, measured = resident_after_a_long_request(home, {"file": path.name, **fields})
    assert planned == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    "fields", [{"cache_type": "q8_0"}, {"flash_attention": "off", "ubatch": 128}], ids=["q8_0", "no flash attention"]
)
def test_for_the_starter_model_as_well(home, fields):
    put_starter_model(project.MODELS_PATH)
    planned, measured = resident_after_a_long_request(home, {"file": FILE, **fields})
    assert planned == pytest.approx(measured, rel=0.1)
