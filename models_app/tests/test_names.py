"""Aliases, the default model and traffic shares: what may be, in the API and in ``model_config.json``."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import ValidationError

from accounts.models import AuditEntry
from models_app import selectors, services
from models_app.config_sync import sync_config_file
from models_app.models import ModelConfig, ServedName
from tests.api_callers import assert_error, client_of

pytestmark = pytest.mark.django_db
URL = "/api/v1/models"


@pytest.fixture(autouse=True)
def home(settings, tmp_path):
    settings.HOME_DIR, settings.RUN_DIR = tmp_path, tmp_path / "run"
    settings.MODELS_PATH = tmp_path / "models"
    settings.MODELS_PATH.mkdir()
    settings.MODEL_CONFIG_PATH = settings.MODELS_PATH / "model_config.json"
    return tmp_path


@pytest.fixture
def write(settings):
    def write(*entries: dict) -> None:
        settings.MODEL_CONFIG_PATH.write_text(json.dumps({"models": entries}, indent=1), encoding="utf-8")

    return write


@pytest.fixture
def in_file(settings):
    def read() -> dict[str, dict]:
        entries = json.loads(settings.MODEL_CONFIG_PATH.read_text("utf-8"))["models"]
        return {entry["modelName"]: entry for entry in entries}

    return read


def entry(name: str, **fields) -> dict:
    return {"modelName": name, "modelFile": f"{name}.gguf", **fields}


def make(name: str, **fields) -> ModelConfig:
    return services.create_model({"name": name, "file": f"{name}.gguf", **fields})


def patch(name: str, **fields):
    return client_of("operator").patch(f"{URL}/{name}", fields, format="json")


def refusal(answer, field: str) -> str:
    details = assert_error(answer, 400, "invalid_request")["details"]
    assert list(details) == [field]
    return str(details[field])


def names() -> dict[str, str]:
    return dict(ServedName.objects.values_list("name", "model__name"))


# -- one setting after the other ---------------------------------------------------------------------------------------
def test_all_four_reach_database_and_file(in_file):
    make("other")
    wanted = {
        "aliases": ["gpt-4o", "Qwen/Qwen3-4B"],
        "default": True,
        "systemPrompt": "说中文。",
        "traffic": {"other": 10},
    }
    created = client_of("operator").post(URL, entry("m") | wanted, format="json").json()
    assert {name: created[name] for name in wanted} == wanted
    assert {name: in_file()["m"][name] for name in wanted} == wanted
    view = selectors.serving_snapshot()["m"]
    assert (view.names, view.is_default, view.system_prompt) == (("m", "gpt-4o", "Qwen/Qwen3-4B"), True, "说中文。")
    assert view.traffic == (("other", 10),)
    assert patch("m", aliases=[], traffic={}, default=False, systemPrompt="").status_code == 200
    assert selectors.serving_snapshot()["m"].names == ("m",)
    assert names() == {"m": "m", "other": "other"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aliases", "x"),
        ("aliases", [1]),
        ("aliases", ["a b"]),
        ("aliases", ["/a"]),
        ("aliases", ["a//b"]),
        ("aliases", ["../a"]),
        ("aliases", ["a\n"]),
        ("aliases", ["x" * 129]),
        ("aliases", ["x", "x"]),
        ("aliases", ["m"]),
        ("aliases", ["other"]),
        ("aliases", ["taken"]),
        ("aliases", [f"a{n}" for n in range(33)]),
        ("default", "yes"),
        ("systemPrompt", 3),
        ("systemPrompt", "x" * 100_001),
        ("traffic", ["other"]),
        ("traffic", {"other": 101}),
        ("traffic", {"other": -1}),
        ("traffic", {"other": "10"}),
        ("traffic", {"other": 60, "third": 50}),
        ("traffic", {"m": 10}),
        ("traffic", {"nobody": 10}),
        ("traffic", {"taken": 10}),
        ("traffic", {"../x": 10}),
        ("traffic", {"vectors": 10}),
        ("traffic", {"sender": 10}),
        ("traffic", {f"a{n}": 1 for n in range(9)}),
    ],
)
def test_what_cannot_be_is_said_beside_its_field(field, value):
    make("m", file="m.gguf")
    make("other", aliases=["taken"])
    make("third")
    make("vectors", embeddings=True)
    make("sender", traffic={"third": 1})
    before = selectors.model_dicts()
    refusal(patch("m", **{field: value}), field)
    assert selectors.model_dicts() == before


# -- names -----------------------------------------------------------------------------------------------------------------
def test_a_new_model_cannot_have_anothers_alias():
    make("m", aliases=["gpt-4o"])
    answer = client_of("operator").post(URL, entry("gpt-4o"), format="json")
    assert "“m”" in assert_error(answer, 409, "model_exists")["message"]
    assert patch("m", aliases=[]).status_code == 200
    assert client_of("operator").post(URL, entry("gpt-4o"), format="json").status_code == 201


def test_a_download_cannot_be_given_anothers_alias():
    make("m", aliases=["gpt-4o"])
    body = {"source": "a/b:q4_k_m", "modelName": "gpt-4o"}
    assert_error(client_of("operator").post("/api/v1/downloads", body, format="json"), 409, "model_exists")


def test_of_two_who_take_a_name_at_the_same_time_one_is_refused():
    """The other's write came after the look at what there is: the table of names decides."""
    make("a")
    other = make("b")
    ServedName.objects.create(name="wanted", model=other)
    assert "try again" in refusal(patch("a", aliases=["wanted"]), "body")
    answer = client_of("operator").post(URL, entry("c", aliases=["wanted"]), format="json")
    assert "try again" in refusal(answer, "body")
    assert ModelConfig.objects.get(name="a").aliases == []
    assert names() == {"a": "a", "b": "b", "wanted": "b"}


def test_a_deleted_models_names_are_free():
    make("m", aliases=["x"])
    make("third")
    assert client_of("operator").delete(f"{URL}/m").status_code == 204
    assert patch("third", aliases=["m", "x"]).status_code == 200


def test_people_do_not_see_what_the_model_is_told_and_which_others_there_are():
    make("other")
    make("m", system_prompt="secret", traffic={"other": 1}, aliases=["x"])
    seen = client_of("user").get(f"{URL}/m").json()
    assert (seen["systemPrompt"], seen["traffic"], seen["aliases"]) == ("", {}, ["x"])


def test_a_sync_that_somebody_else_was_quicker_than_changes_nothing(write):
    other = make("b")
    write(entry("a", aliases=["wanted"]), entry("b"))
    ServedName.objects.create(name="wanted", model=other)
    ModelConfig.objects.filter(name="b").update(file_entry=entry("b"))
    report = sync_config_file()
    assert ([problem.reason[:13] for problem in report.problems], report.added) == (["Somebody else"], [])
    assert [model.name for model in ModelConfig.objects.all()] == ["b"]


# -- the default -------------------------------------------------------------------------------------------------------------
def test_the_default_moves(in_file):
    make("a", is_default=True)
    make("b")
    assert patch("b", default=True).json()["default"] is True
    assert [model.name for model in ModelConfig.objects.filter(is_default=True)] == ["b"]
    assert {name: one["default"] for name, one in in_file().items()} == {"a": False, "b": True}
    noted = AuditEntry.objects.filter(action="model.update")
    assert {row.target_name: row.changes["is_default"] for row in noted} == {"a": [True, False], "b": [False, True]}
    make("c", is_default=True)
    assert [model.name for model in ModelConfig.objects.filter(is_default=True)] == ["c"]


# -- shares ------------------------------------------------------------------------------------------------------------------
def test_one_that_is_given_requests_gives_none_away_and_stays_of_its_kind():
    for name in ("new", "third"):
        make(name)
    make("m", traffic={"new": 10})
    assert "“m”" in refusal(patch("new", traffic={"third": 10}), "traffic")
    assert "“m”" in refusal(patch("new", embeddings=True), "embeddings")
    assert patch("m", traffic={"new": 0}).status_code == 200


def test_vectors_are_not_shared():
    make("new", embeddings=True)
    make("m", embeddings=True)
    refusal(patch("m", traffic={"new": 10}), "traffic")


def test_shares_of_a_deleted_model_end(in_file):
    for name in ("new", "third"):
        make(name)
    make("m", traffic={"new": 10, "third": 5})
    services.delete_model("new")
    assert ModelConfig.objects.get(name="m").traffic == {"third": 5}
    assert in_file()["m"]["traffic"] == {"third": 5}
    assert AuditEntry.objects.filter(action="model.update", target_name="m").exists()


# -- the file ----------------------------------------------------------------------------------------------------------------
def test_names_move_between_entries_in_one_go(write):
    write(entry("a", aliases=["x", "y"]), entry("b", aliases=["z"]))
    sync_config_file()
    write(entry("a", aliases=["z"]), entry("b", aliases=["y", "x"]))
    assert sync_config_file().problems == []
    assert names() == {"a": "a", "z": "a", "b": "b", "y": "b", "x": "b"}


def test_a_model_under_a_new_name_takes_the_old_ones_aliases_along(write):
    write(entry("a", aliases=["x"], default=True, traffic={"b": 10}), entry("b"))
    sync_config_file()
    write(entry("new", aliases=["x"], default=True, traffic={"b": 10}), entry("b"))
    report = sync_config_file()
    assert (report.added, report.removed, report.problems) == (["new"], ["a"], [])
    assert names()["x"] == "new"
    assert ModelConfig.objects.get(is_default=True).name == "new"


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ([entry("a", aliases=["x"]), entry("b", aliases=["x"])], "b: aliases"),
        ([entry("a", aliases=["x"]), entry("x")], "x: modelName"),
        ([entry("a"), entry("b", aliases=["a"])], "b: aliases"),
        ([entry("a", default=True), entry("b", default=True)], "b: default"),
        ([entry("a", traffic={"nobody": 1})], "a: traffic"),
        ([entry("a", traffic={"b": 1}), entry("b", traffic={"c": 1}), entry("c")], "b: traffic"),
        ([entry("a", aliases=["kept-alias"])], "a: aliases"),
        ([entry("a", aliases=["kept"])], "a: aliases"),
    ],
)
def test_an_entry_that_does_not_go_with_others_is_refused_with_its_line(write, entries, word):
    kept = entry("kept", aliases=["kept-alias"])
    write(kept)
    sync_config_file()
    write(kept, *entries)
    assert word in [problem.reason[: len(word)] for problem in sync_config_file().problems if problem.line > 1]
    assert not ModelConfig.objects.filter(name=word.partition(":")[0]).exists()


def test_a_refused_change_leaves_the_model_as_it_was(write):
    write(entry("a", aliases=["x"]), entry("b", slots=2))
    sync_config_file()
    write(entry("a", aliases=["x"]), entry("b", slots=4, aliases=["x"]))
    report = sync_config_file()
    assert (report.changed, report.removed, len(report.problems)) == ([], [], 1)
    assert ModelConfig.objects.get(name="b").slots == 2
    write(entry("a", aliases=["x"]), entry("b", slots=4, aliases=["y"]))
    assert sync_config_file().changed == ["b"], "the refused entry was not taken for read"


def test_the_file_may_move_the_default(write):
    write(entry("a", default=True), entry("b"))
    sync_config_file()
    make("c", is_default=True)
    assert [model.name for model in ModelConfig.objects.filter(is_default=True)] == ["c"]
    write(entry("a"), entry("b", default=True), entry("c"))
    assert sync_config_file().problems == []
    assert [model.name for model in ModelConfig.objects.filter(is_default=True)] == ["b"]


def test_a_default_that_is_lost_stays_lost_when_its_entry_changes_too(write):
    write(entry("a"), entry("b"))
    sync_config_file()
    ModelConfig.objects.filter(name="a").update(is_default=True)  # as when the file could not be written
    write(entry("a", slots=4), entry("b", default=True))
    assert sync_config_file().changed == ["a", "b"]
    assert [model.name for model in ModelConfig.objects.filter(is_default=True)] == ["b"]


def test_services_say_what_the_file_would():
    make("a", aliases=["x"])
    with pytest.raises(ValidationError) as caught:
        make("b", aliases=["x"])
    assert "“a”" in caught.value.message_dict["aliases"][0]
