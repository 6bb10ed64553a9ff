"""model_config.json and the database, both changed: what goes where, and what a person has to decide."""

from __future__ import annotations

import json

import pytest

from models_app import config_conflicts, config_entry, config_file, config_report, services
from models_app.config_merge import Merge, merge
from models_app.config_report import SyncReport
from models_app.config_sync import sync_config_file
from models_app.models import ModelConfig, ServedName
from models_app.services import ModelExists
from models_app.tests.gguf_files import make_gguf

pytestmark = pytest.mark.django_db


@pytest.fixture
def write(home, settings):
    def write(*entries: dict) -> None:
        document = {"note": "kept", "models": list(entries), "last": 1}
        settings.MODEL_CONFIG_PATH.write_text(json.dumps(document), encoding="utf-8")

    return write


@pytest.fixture
def read(home, settings):
    return lambda: json.loads(settings.MODEL_CONFIG_PATH.read_text(encoding="utf-8"))


@pytest.fixture
def refused(monkeypatch):
    """The file cannot be written; call it to make that end."""

    def refuse(path, document) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(config_file, "write", refuse)
    return monkeypatch.undo


def entry(**fields) -> dict:
    return {"modelName": "a", "modelFile": "a.gguf", **fields}


def ours(**fields) -> dict:
    values = {key.field: key.default for key in config_file.KEYS.values()}
    return {**values, "name": "a", "file": "a.gguf", **fields}


@pytest.mark.parametrize(
    ("base", "file", "here", "expected"),
    [
        (entry(slots=2), entry(slots=2), ours(slots=2), Merge()),
        (entry(slots=2), entry(slots=3), ours(slots=2), Merge(from_file=("slots",))),
        (entry(slots=2), entry(slots=2), ours(slots=3), Merge(from_here=("slots",))),
        (entry(slots=2), entry(slots=3), ours(slots=4), Merge(conflicts=("slots",))),
        (entry(slots=2), entry(slots=3), ours(slots=3), Merge()),
        (entry(slots=3), entry(), ours(slots=3), Merge(from_file=("slots",))),
        (entry(), entry(slots=2), ours(slots=2), Merge()),
        ({}, entry(slots=3), ours(slots=4), Merge(from_file=("slots",))),
        (entry(), entry(topP=1, slots=3), ours(top_p=0.5, slots=2), Merge(("slots",), (), ("topP",))),
        (entry(slots="x"), entry(slots=3), ours(slots=4), Merge(conflicts=("slots",))),
    ],
)
def test_who_changed_what(base, file, here, expected):
    assert merge(base, file, here) == expected


@pytest.fixture
def disagreeing(write, read, monkeypatch):
    """slots: 2 at first; then 5 in the file and 3 here. temperature was changed here only, topP in the file only."""
    write(entry(slots=2, mine="x"))
    sync_config_file()
    with monkeypatch.context() as patch:
        patch.setattr(config_file, "write", lambda path, document: (_ for _ in ()).throw(PermissionError(13, "no")))
        services.update_model("a", {"slots": 3, "temperature": 0.1})
    write(entry(slots=5, mine="y", topP=0.4))


def test_what_both_changed_stays_on_either_side_until_somebody_decides(disagreeing, read):
    report = sync_config_file()
    assert (report.changed, report.conflicts, report.written_back) == (["a"], ["a: slots"], ["a"])
    model = ModelConfig.objects.get()
    assert (model.slots, model.temperature, model.top_p, model.extra) == (3, 0.1, 0.4, {"mine": "y"})
    document = read()
    assert list(document) == ["note", "models", "last"]
    assert document["models"] == [entry(slots=5, mine="y", topP=0.4, temperature=0.1)]
    again = sync_config_file()
    assert (again.changed, again.conflicts, again.written_back) == ([], ["a: slots"], [])
    last = config_report.last()
    assert last is not None
    assert last["conflicts"] == ["a: slots"]
    services.update_model("a", {"description": "other"})
    assert (read()["models"][0]["slots"], ModelConfig.objects.get().slots) == (5, 3), (
        "writing something else decides nothing"
    )


@pytest.mark.parametrize(("keep", "slots"), [("file", 5), ("ours", 3)])
def test_deciding(disagreeing, read, keep, slots):
    sync_config_file()
    (conflict,) = config_conflicts.found()
    assert (conflict.model, conflict.key, conflict.file, conflict.ours) == ("a", "slots", 5, 3)
    config_conflicts.decide(conflict, keep)
    assert (read()["models"][0]["slots"], ModelConfig.objects.get().slots) == (slots, slots)
    assert config_conflicts.found() == []
    assert sync_config_file().conflicts == []
    with pytest.raises(config_conflicts.NoConflict):
        config_conflicts.decide(conflict, keep)


def test_a_decision_about_other_values_is_none(disagreeing, write):
    (conflict,) = config_conflicts.found()
    write(entry(slots=7))
    with pytest.raises(config_conflicts.NoConflict):
        config_conflicts.decide(conflict, "file")
    assert ModelConfig.objects.get().slots == 3


def test_an_edit_that_was_not_synchronised_survives_a_change_made_here(write, read):
    write(entry(slots=2))
    sync_config_file()
    write(entry(slots=2, temperature=0.3))
    services.set_active("a", False)
    model = ModelConfig.objects.get()
    assert (model.temperature, model.active) == (0.3, False)
    assert read()["models"] == [entry(slots=2, temperature=0.3, active=False)]


def test_what_the_file_could_not_take_is_written_later(write, read, refused):
    write(entry())
    sync_config_file()
    services.update_model("a", {"slots": 6})
    assert "slots" not in read()["models"][0]
    refused()
    assert sync_config_file().written_back == ["a"]
    assert read()["models"][0]["slots"] == 6


def test_what_a_form_sends_back_untouched_does_not_undo_an_edit(write, read):
    write(entry(slots=2))
    sync_config_file()
    everything = config_entry.values_of(ModelConfig.objects.get())
    write(entry(slots=2, temperature=0.3))
    services.update_model("a", {**everything, "description": "new"})
    model = ModelConfig.objects.get()
    assert (model.temperature, model.description) == (0.3, "new")
    assert read()["models"] == [entry(slots=2, temperature=0.3, description="new")]


def test_a_key_changed_here_and_in_a_file_nobody_has_synchronised_is_a_conflict(write, read):
    write(entry(slots=2))
    sync_config_file()
    write(entry(slots=3))
    services.update_model("a", {"slots": 4})
    assert read()["models"] == [entry(slots=3)]
    assert [(one.file, one.ours) for one in config_conflicts.found()] == [(3, 4)]


def test_a_removal_that_the_file_could_not_take_holds(write, read, refused):
    write(entry())
    sync_config_file()
    services.delete_model("a")
    assert sync_config_file().added == []
    assert not ModelConfig.objects.exists()
    refused()
    sync_config_file()
    assert read()["models"] == []
    services.create_model({"name": "a", "file": "a.gguf"})
    assert sync_config_file() == SyncReport()


def test_an_entry_that_somebody_took_out_is_not_put_back(write, read):
    write(entry())
    sync_config_file()
    write()
    services.update_model("a", {"slots": 4})
    assert read()["models"] == []
    assert sync_config_file().removed == ["a"]


def test_an_entry_that_is_not_synchronised_yet_is_not_overwritten(write, read):
    write(entry(slots=7))
    with pytest.raises(ModelExists):
        services.create_model({"name": "a", "file": "b.gguf"})
    assert read()["models"] == [entry(slots=7)]


# -- import and export -----------------------------------------------------------------------------------------------------
def test_what_is_exported_can_be_imported(write, read, home):
    make_gguf(home / "models" / "a.gguf")
    write(entry(slots=2, mine="x"), {"broken": True})
    sync_config_file()
    text = config_conflicts.exported()
    assert json.loads(text) == read(), "unknown keys and what is broken too"
    services.update_model("a", {"slots": 4, "temperature": 0.1})
    other = json.loads(text)
    other["models"] = [entry(slots=2, mine="z"), {"modelName": "b", "modelFile": "b.gguf"}]
    report = config_conflicts.take_in(json.dumps(other).encode())
    assert (report.added, report.changed, report.problems) == (["b"], ["a"], [])
    model = ModelConfig.objects.get(name="a")
    assert (model.slots, model.temperature, model.extra) == (2, 0.1, {"mine": "z"}), "what it does not name stays"
    assert [one["modelName"] for one in read()["models"] if "modelName" in one] == ["a", "b"]
    assert config_conflicts.take_in(json.dumps(other).encode()).changed == []


def test_entries_that_need_each_other_are_imported_together(write, home):
    write(entry(aliases=["x"]), {"modelName": "b", "modelFile": "b.gguf", "aliases": ["y"]})
    sync_config_file()
    models = [
        entry(aliases=["y"], traffic={"new": 10}),
        {"modelName": "b", "modelFile": "b.gguf", "aliases": ["x"], "default": True},
        {"modelName": "new", "modelFile": "new.gguf"},
    ]
    report = config_conflicts.take_in(json.dumps({"models": models}).encode())
    assert (report.added, report.changed, report.problems) == (["new"], ["a", "b"], [])
    found = {model.name: model for model in ModelConfig.objects.all()}
    assert (found["a"].aliases, found["a"].traffic, found["b"].aliases) == (["y"], {"new": 10}, ["x"])
    assert sync_config_file() == SyncReport()
    models[0]["traffic"] = {"nobody": 10}
    models[2]["slots"] = 7
    report = config_conflicts.take_in(json.dumps({"models": models}).encode())
    assert "nobody" in report.problems[0].reason
    assert ModelConfig.objects.get(name="new").slots == 2


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "JSON"),
        (b"\xff\xfe{", "UTF-8"),
        (b'{"models": [{"modelName": "b", "modelFile": "b.gguf"}, {"modelName": "c"}]}', "modelFile"),
        (b'{"models": [{"modelName": "b", "modelFile": "../b.gguf"}]}', "outside"),
        (b" " * (config_file.MAX_BYTES + 1), "too large"),
    ],
)
def test_a_file_with_a_mistake_is_not_imported_at_all(home, content, word):
    report = config_conflicts.take_in(content)
    assert word in report.problems[0].reason
    assert not ModelConfig.objects.exists()


def test_an_import_that_loses_a_name_to_somebody_else_writes_nothing(home):
    """Who takes it in that very moment is seen by the table of names only."""
    quicker = services.create_model({"name": "quicker", "file": "a.gguf"})
    ServedName.objects.create(name="b", model=quicker)
    models = [entry(), {"modelName": "b", "modelFile": "b.gguf"}]
    report = config_conflicts.take_in(json.dumps({"models": models}).encode())
    assert "Somebody else" in report.problems[0].reason
    assert [model.name for model in ModelConfig.objects.all()] == ["quicker"]
