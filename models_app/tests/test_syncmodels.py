"""``model_config.json``: what is read, what is refused with which line, what is written back."""

import json
import os
import stat

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command

from models_app import config_file, services
from models_app.config_report import SyncReport
from models_app.config_sync import sync_config_file
from models_app.models import ModelConfig
from models_app.selectors import model_dicts
from models_app.services import ModelExists, ModelNotFound
from models_app.tests.gguf_files import make_gguf

pytestmark = pytest.mark.django_db

GUIDE = """{
  "models": [
    {
      "modelName": "qwen2-7b-instruct",
      "modelFile": "qwen2-7b-instruct-q4_k_m.gguf",
      "modelPath": "models/",
      "contextLength": 32768,
      "maxTokens": 2048,
      "temperature": 0.7,
      "topP": 0.8,
      "repeatPenalty": 1.1,
      "threads": 8,
      "gpuLayers": 0,
      "active": true,
      "description": "Qwen2 7B 指令微调模型"
    }
  ]
}
"""


@pytest.fixture
def write(home, settings):
    def write(content) -> None:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        settings.MODEL_CONFIG_PATH.write_text(text, encoding="utf-8")

    return write


@pytest.fixture
def read(home, settings):
    return lambda: json.loads(settings.MODEL_CONFIG_PATH.read_text(encoding="utf-8"))


def entry(name="a", **fields) -> dict:
    return {"modelName": name, "modelFile": f"{name}.gguf", **fields}


# -- reading -------------------------------------------------------------------------------------------------------------
def test_the_guides_example_is_understood(write):
    write(GUIDE)
    report = sync_config_file()
    assert (report.added, report.problems) == (["qwen2-7b-instruct"], [])
    (model,) = model_dicts()
    assert {name: model[name] for name in json.loads(GUIDE)["models"][0]} == json.loads(GUIDE)["models"][0]
    assert sync_config_file() == SyncReport()


def test_a_syntax_error_is_told_with_line_and_column_and_changes_nothing(write):
    write(GUIDE)
    sync_config_file()
    write(GUIDE.replace('"threads": 8,', '"threads": 8'))
    (problem,) = sync_config_file().problems
    assert problem.line == 13
    assert "column" in problem.reason
    assert ModelConfig.objects.get().active


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "JSON"),
        ("[]", "models"),
        ('{"models": {}}', "models"),
        ('{"models": [NaN]}', "JSON"),
        ("[" * 100_000, "JSON"),
        ("\ufeff" + '{"model": []}', "models"),
    ],
)
def test_a_file_of_another_shape_is_one_problem(write, content, word):
    write(content)
    (problem,) = sync_config_file().problems
    assert problem.line == 1
    assert word in problem.reason


def test_a_file_in_another_encoding_is_named(home, settings):
    settings.MODEL_CONFIG_PATH.write_bytes(GUIDE.encode("gbk"))
    assert "UTF-8" in sync_config_file().problems[0].reason


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"modelFile": "../secret.gguf"}, "modelFile"),
        ({"modelFile": "/etc/passwd"}, "modelFile"),
        ({"modelFile": "C:\\windows\\x.gguf"}, "modelFile"),
        ({"modelFile": "a\u0000.gguf"}, "modelFile"),
        ({"modelFile": ""}, "modelFile"),
        ({"modelPath": "../other"}, "modelFile"),
        ({"modelPath": "/etc"}, "modelFile"),
        ({"modelFile": 3}, "modelFile"),
        ({"modelName": "a b"}, "modelName"),
        ({"modelName": "--help"}, "modelName"),
        ({"contextLength": "4096"}, "contextLength"),
        ({"contextLength": -1}, "contextLength"),
        ({"temperature": "warm"}, "temperature"),
        ({"topP": 1.5}, "topP"),
        ({"threads": True}, "threads"),
        ({"threads": 0}, "threads"),
        ({"active": "yes"}, "active"),
        ({"replicas": 0}, "replicas"),
        ({"policy": "sometimes"}, "policy"),
        ({"cacheType": "q5"}, "cacheType"),
        ({"cacheType": "q8_0", "flashAttention": "off"}, "cacheType"),
        ({"speculative": "draft"}, "draftFile"),
        ({"draftFile": "../x.gguf"}, "draftFile"),
        ({"mmprojFile": "/x.gguf"}, "mmprojFile"),
        ({"loraAdapters": {"file": "a"}}, "loraAdapters"),
        ({"loraAdapters": [{"file": "a:b"}]}, "loraAdapters"),
        ({"loraAdapters": [{"file": "../a"}]}, "loraAdapters"),
        ({"loraAdapters": [{"file": "a", "scale": "1"}]}, "loraAdapters"),
        ({"chatTemplate": "a\u0000"}, "chatTemplate"),
        ({"promptCache": -1}, "promptCache"),
    ],
)
def test_a_bad_entry_is_named_and_the_good_ones_go_on(write, fields, word):
    good, bad = entry("good"), {**entry("bad"), **fields}
    write('{"note": [1, {"models": 2}],\n "models": [\n' + json.dumps(good) + ",\n\n" + json.dumps(bad) + "\n]}")
    report = sync_config_file()
    (problem,) = report.problems
    assert problem.line == 5
    assert word in problem.reason
    assert report.added == ["good"]


def test_missing_keys_and_duplicates_are_named(write):
    write({"models": [{"modelFile": "a.gguf"}, {"modelName": "b"}, 3, entry("c"), entry("c")]})
    report = sync_config_file()
    assert report.added == ["c"]
    for word, problem in zip(("modelName", "modelFile", "{", "twice"), report.problems, strict=True):
        assert word in problem.reason


def test_a_link_out_of_the_models_folder_is_refused(write, home, tmp_path_factory):
    outside = make_gguf(tmp_path_factory.mktemp("elsewhere") / "x.gguf")
    (home / "models" / "a.gguf").symlink_to(outside)
    write({"models": [entry("a")]})
    assert "outside" in sync_config_file().problems[0].reason


# -- what changed where --------------------------------------------------------------------------------------------------
def test_only_what_changed_in_the_file_is_taken_over(write, settings):
    write({"models": [entry("a", threads=2, temperature=0.5)]})
    sync_config_file()
    ModelConfig.objects.update(temperature=0.9)  # a change that the file, read-only then, has not seen
    write({"models": [entry("a", threads=4, temperature=0.5, note="mine")]})
    assert sync_config_file().changed == ["a"]
    model = ModelConfig.objects.get()
    assert (model.threads, model.temperature, model.extra) == (4, 0.9, {"note": "mine"})


def test_an_entry_taken_out_stops_its_model_and_coming_back_starts_it(write):
    write({"models": [entry("a"), entry("b")]})
    sync_config_file()
    write({"models": [entry("b")]})
    assert sync_config_file().removed == ["a"]
    assert not ModelConfig.objects.get(name="a").active
    assert sync_config_file().removed == []
    write({"models": [entry("a"), entry("b")]})
    sync_config_file()
    assert ModelConfig.objects.get(name="a").active


def test_an_entry_that_turned_bad_or_lost_its_name_stops_nothing(write):
    write({"models": [entry("a")]})
    sync_config_file()
    for broken in (entry("a", threads="x"), {"modeName": "a", "modelFile": "a.gguf"}):
        write({"models": [broken]})
        assert sync_config_file().removed == []
        assert ModelConfig.objects.get().active


# -- the first file ------------------------------------------------------------------------------------------------------
def test_without_a_file_one_is_written_for_the_files_found(home, read):
    make_gguf(home / "models" / "Qwen Test (1).gguf")
    make_gguf(home / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    make_gguf(home / "models" / "big-00001-of-00002.gguf")
    make_gguf(home / "models" / "big-00002-of-00002.gguf")
    report = sync_config_file()
    assert report.added == ["smollm2-135m-instruct", "qwen-test-1", "big-00001-of-00002"]
    assert not report.problems
    first = read()["models"][0]
    assert (first["modelFile"], first["contextLength"]) == ("SmolLM2-135M-Instruct.Q4_1.gguf", 4096)
    assert list(first)[:3] == ["modelName", "modelFile", "modelPath"]
    assert sync_config_file() == SyncReport()


def test_with_nothing_found_no_file_is_written(home, settings):
    assert sync_config_file() == SyncReport()
    assert not settings.MODEL_CONFIG_PATH.exists()


# -- writing back --------------------------------------------------------------------------------------------------------
def test_a_change_is_written_back_in_place(write, read, settings):
    write({"version": 7, "models": [{"note": "x", **entry("a", threads=2)}, {"broken": True}, entry("b")], "last": 1})
    os.chmod(settings.MODEL_CONFIG_PATH, 0o640)
    sync_config_file()
    services.update_model("a", {"threads": 6, "description": "中文"})
    services.set_active("b", False)
    document = read()
    assert list(document) == ["version", "models", "last"]
    a, broken, b = document["models"]
    assert list(a.items()) == [
        ("note", "x"),
        ("modelName", "a"),
        ("modelFile", "a.gguf"),
        ("threads", 6),
        ("description", "中文"),
    ]
    assert broken == {"broken": True}
    assert b == {**entry("b"), "active": False}
    assert "中文" in settings.MODEL_CONFIG_PATH.read_text(encoding="utf-8")
    assert stat.S_IMODE(settings.MODEL_CONFIG_PATH.stat().st_mode) == 0o640
    assert sync_config_file().changed == []


def test_models_are_made_and_deleted_in_file_and_database(write, read):
    write({"models": [entry("a")]})
    sync_config_file()
    services.create_model({"name": "b", "file": "b.gguf", "threads": 3})
    assert [raw["modelName"] for raw in read()["models"]] == ["a", "b"]
    assert read()["models"][1]["threads"] == 3
    with pytest.raises(ModelExists):
        services.create_model({"name": "b", "file": "b.gguf"})
    services.delete_model("a")
    assert [raw["modelName"] for raw in read()["models"]] == ["b"]
    with pytest.raises(ModelNotFound):
        services.delete_model("a")
    assert sync_config_file() == SyncReport()


@pytest.mark.parametrize(
    "fields",
    [
        {"file": "../x"},
        {"path": "/etc"},
        {"threads": 0},
        {"temperature": 9},
        {"name": "c"},
        {"pid": 3},
        {"slots": None},
        {"cache_type": "q8_0", "flash_attention": "off"},
        {"speculative": "draft"},
        {"lora": [{"file": "../x.gguf"}]},
        {"cores": "3-1"},
        {"cores": "0-4096"},
        {"cores": "0-1", "numa": "isolate"},
        {"numa": "numactl"},
    ],
)
def test_bad_changes_are_refused_and_nothing_is_written(write, read, fields):
    write({"models": [entry("a")]})
    sync_config_file()
    before = read()
    with pytest.raises(ValidationError):
        services.update_model("a", fields)
    assert read() == before


def test_a_file_with_a_mistake_is_never_overwritten(write, settings):
    write({"models": [entry("a")]})
    sync_config_file()
    write("{broken")
    services.set_active("a", False)
    assert settings.MODEL_CONFIG_PATH.read_text() == "{broken"
    assert not ModelConfig.objects.get().active


def test_when_the_file_cannot_be_written_the_change_holds(write, monkeypatch, caplog):
    write({"models": [entry("a")]})
    sync_config_file()

    def refuse(path, document) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(config_file, "write", refuse)
    services.set_active("a", False)
    assert "could not be written" in caplog.text
    sync_config_file()
    assert not ModelConfig.objects.get().active, "the old value in the file is no news"


def test_starting_lifts_a_policy_of_off(write):
    write({"models": [entry("a", policy="off")]})
    sync_config_file()
    assert ModelConfig.objects.get().wanted_replicas == 0
    assert services.set_active("a", True).wanted_replicas == 1


# -- the command ---------------------------------------------------------------------------------------------------------
def test_the_command_says_what_it_did(write, capsys):
    write({"models": [entry("a"), {"modelName": "b"}]})
    with pytest.raises(SystemExit):
        call_command("syncmodels")
    said = capsys.readouterr()
    assert "added: a" in said.out
    assert "line 1: b: modelFile is missing" in said.err
    write({"models": [entry("a")]})
    call_command("syncmodels")
    assert "Nothing has changed" in capsys.readouterr().out
