"""The console's page of model_config.json."""

from __future__ import annotations

import html
import json
import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from models_app import config_file, config_sync, services
from models_app.models import ModelConfig

PAGE = "/admin/models_app/modelconfig/config/"
ENTRY = {"modelName": "tiny", "modelFile": "tiny.gguf", "slots": 2}


@pytest.fixture
def write(settings):
    def write(*entries: dict) -> None:
        settings.MODEL_CONFIG_PATH.write_text(json.dumps({"models": list(entries)}), encoding="utf-8")

    return write


def text(client: Client) -> str:
    return client.get(PAGE).content.decode()


def post(client: Client, **data) -> str:
    return client.post(PAGE, data, follow=True).content.decode()


def test_the_file_is_synchronised(as_operator: Client, write, django_assert_max_num_queries):
    assert "There is no such file" in text(as_operator)
    write(ENTRY)
    assert "not taken over yet: tiny" in text(as_operator)
    assert "added: tiny" in post(as_operator, sync="yes")
    with django_assert_max_num_queries(4):
        page = text(as_operator)
    assert "The file says what the console says" in page
    write({**ENTRY, "slots": "many"})
    assert "Line 1: tiny: slots must be" in post(as_operator, sync="yes")
    assert (
        'href="/admin/models_app/modelconfig/config/"'
        in as_operator.get("/admin/models_app/modelconfig/").content.decode()
    )


@pytest.mark.parametrize(("keep", "slots"), [("file", 5), ("ours", 3)])
def test_a_conflict_is_shown_and_decided(as_operator: Client, write, monkeypatch, settings, keep: str, slots: int):
    write(ENTRY)
    config_sync.sync_config_file()
    with monkeypatch.context() as patch:
        patch.setattr(config_file, "write", lambda path, document: (_ for _ in ()).throw(PermissionError(13, "no")))
        services.update_model("tiny", {"slots": 3})
        assert "not written into the file yet: tiny" in text(as_operator)
    write({**ENTRY, "slots": 5})
    assert "Changed on both sides: tiny: slots" in post(as_operator, sync="yes")
    page = text(as_operator)
    value = html.unescape(re.search(rf'name="keep" value="({keep}:[^"]+)"', page)[1])
    assert "look again" in post(as_operator, keep=value.replace("5", "7"))
    assert "both sides have the same" in post(as_operator, keep=value)
    assert ModelConfig.objects.get().slots == slots
    assert json.loads(settings.MODEL_CONFIG_PATH.read_text())["models"][0]["slots"] == slots
    assert "look again" in post(as_operator, keep=value)


@pytest.mark.parametrize(
    "value", ["file:", "file:[]", "file:{", "ours:[1, 2, 3, 4]", 'file:["tiny", "x", 1, 2]', f"file:{'[' * 100_000}"]
)
def test_strange_decisions_decide_nothing(as_operator: Client, write, value: str):
    write(ENTRY)
    config_sync.sync_config_file()
    assert "look again" in post(as_operator, keep=value)


def test_export_and_import(as_operator: Client, write, settings):
    write({**ENTRY, "mine": "kept"})
    config_sync.sync_config_file()
    answer = as_operator.get(f"{PAGE}export/")
    assert answer["Content-Disposition"] == 'attachment; filename="model_config.json"'
    assert json.loads(answer.content)["models"][0]["mine"] == "kept"
    assert "Choose a file first" in post(as_operator, **{"import": "yes"})
    broken = SimpleUploadedFile("m.json", b'{"models": [{"modelName": "x"}]}')
    assert "Nothing was imported" in post(as_operator, **{"import": "yes"}, file=broken)
    good = SimpleUploadedFile("m.json", json.dumps({"models": [{**ENTRY, "slots": 6}]}).encode())
    assert "changed: tiny" in post(as_operator, **{"import": "yes"}, file=good)
    assert ModelConfig.objects.get().slots == 6
