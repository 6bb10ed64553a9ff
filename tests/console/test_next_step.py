"""The button beside “Why is it not running?”: it does what the sentence says, and only while that still holds."""

from __future__ import annotations

import html
import re

import pytest
from django.test import Client

from models_app import services
from models_app.downloads.models import Download
from models_app.models import ModelConfig
from tests.console.conftest import make_model, make_replica

MODELS = "/admin/models_app/modelconfig/"
GIB = 1024**3
SHORT = {
    "code": "not_enough_memory",
    "params": {
        "needed": 5 * GIB, "weights": 4 * GIB, "kv": GIB, "available": 3 * GIB, "reserve": GIB // 4, "slots": 2,
        "context": 8192, "nearest": {"slots": 1, "context_length": 2048},
    },
}  # fmt: skip
MISSING = {"code": "file_missing", "params": {"file": "tiny.gguf", "folder": "models"}}


def button(client: Client, model: ModelConfig) -> str:
    """What the button on the model's page sends; the list has the same."""
    found = re.search(r'name="step" value="([^"]+)"', client.get(f"{MODELS}{model.pk}/change/").content.decode())
    assert found is not None
    assert found[0] in client.get(MODELS).content.decode()
    return html.unescape(found[1])


def press(client: Client, value: str) -> str:
    return client.post(f"{MODELS}next/", {"step": value}, follow=True).content.decode()


def test_the_nearest_settings_are_used(as_operator: Client):
    model = make_model("tiny", context_length=8192)
    make_replica(model, "failed", reason=SHORT)
    assert "it is started with them" in press(as_operator, button(as_operator, model))
    model.refresh_from_db()
    assert (model.slots, model.context_length) == (1, 2048)


def test_stopped_and_failed_ones_are_started(as_operator: Client):
    stopped, failed = make_model("a", active=False), make_model("b")
    make_replica(failed, "failed", reason={"code": "killed", "params": {}})
    for model in (stopped, failed):
        assert "will be started" in press(as_operator, button(as_operator, model))
        model.refresh_from_db()
    assert stopped.active
    assert failed.restart_number == 1, "one that has given up gets a new try"


def test_a_change_is_taken_back(as_operator: Client):
    model = make_model("tiny", context_length=512)
    services.update_model("tiny", {"context_length": 1024})
    make_replica(model, "ready", 1)
    make_replica(model, "failed", 2, {"code": "exited", "params": {"how": "exit code 1", "line": "boom"}})
    press(as_operator, button(as_operator, model))
    model.refresh_from_db()
    assert model.context_length == 512


def test_a_missing_file_is_downloaded_again(as_operator: Client):
    model = make_model("tiny")
    make_replica(model, "failed", reason=MISSING)
    assert "Choose another file" in as_operator.get(MODELS).content.decode()
    Download.objects.create(
        repository="a/b", origin="huggingface", state="done", tries=1, files=[{"name": "tiny.gguf"}], model_name="tiny"
    )
    press(as_operator, button(as_operator, model))
    again = Download.objects.get(state="waiting")
    assert (again.repository, again.wanted_file, again.origin, again.model_name) == (
        "a/b",
        "tiny.gguf",
        "huggingface",
        "",
    )
    Download.objects.filter(pk=again.pk).update(files=[{"name": "tiny.gguf"}])
    assert "It is being downloaded." in as_operator.get(MODELS).content.decode()


@pytest.mark.parametrize(
    "value",
    ["", "x", ":", "{pk}", "{pk}:go_back:{{}}", "{pk}:show_log:{{}}", "{pk}:start:", f"{'9' * 30}:start:{{{{}}}}"],
)
def test_what_was_not_offered_is_not_done(as_operator: Client, value: str):
    model = make_model("tiny", active=False, context_length=512)
    page = press(as_operator, value.format(pk=model.pk))
    assert "meanwhile" in page
    model.refresh_from_db()
    assert not model.active
    assert as_operator.get(f"{MODELS}next/").status_code == 405


def test_what_has_changed_meanwhile_is_not_done(as_operator: Client):
    model = make_model("tiny", active=False)
    value = button(as_operator, model)
    services.set_active("tiny", True)
    services.set_active("tiny", False)
    services.delete_model("tiny")
    assert "removed meanwhile" in press(as_operator, value)
