from __future__ import annotations

import json

import pytest
from django.utils import timezone

from models_app import reasons, selectors
from models_app.models import ModelConfig, Replica
from models_app.states import State
from tests.api_callers import assert_error, client_of, forbidden_below, statuses

pytestmark = pytest.mark.django_db
URL = "/api/v1/models"


@pytest.fixture(autouse=True)
def home(settings, tmp_path):
    settings.HOME_DIR, settings.RUN_DIR = tmp_path, tmp_path / "run"
    settings.MODELS_PATH = tmp_path / "models"
    settings.MODELS_PATH.mkdir()
    settings.MODEL_CONFIG_PATH = settings.MODELS_PATH / "model_config.json"
    return tmp_path


def make(name: str = "qwen2.5:7b", **fields: object) -> ModelConfig:
    return ModelConfig.objects.create(name=name, file=f"{name}.gguf", **fields)


def replica(model: ModelConfig, state: State = State.READY, number: int = 1, **fields: object) -> Replica:
    return Replica.objects.create(
        model=model, number=number, node="box", state=state, since=timezone.now(), slots=2, **fields
    )


def in_file(settings) -> dict[str, dict[str, object]]:
    entries = json.loads(settings.MODEL_CONFIG_PATH.read_text("utf-8"))["models"]
    return {entry["modelName"]: entry for entry in entries}


class TestReading:
    def test_who(self):
        make()
        expected = {"anyone": 401, "user": 200, "operator": 200, "admin": 200}
        assert statuses("get", URL) == expected
        assert statuses("get", f"{URL}/qwen2.5:7b") == expected

    def test_the_object_has_the_guides_names_and_what_runs(self):
        replica(make(description="七"))
        body = client_of("user").get(f"{URL}/qwen2.5:7b").json()
        guide = "modelName modelFile modelPath contextLength maxTokens temperature topP repeatPenalty threads gpuLayers"
        ours = "active description replicas slots policy ttl pinned group embeddings state running gguf memory"
        engine = "rerank batchThreads ubatchSize cacheType flashAttention promptCache speculative draftFile mmprojFile"
        named = "aliases default systemPrompt traffic cores numa"
        assert set(body) == set(f"{guide} {ours} {engine} loraAdapters chatTemplate {named}".split())
        assert (body["modelName"], body["description"], body["state"]) == ("qwen2.5:7b", "七", "ready")
        (running,) = body["running"]
        assert set(running) == {"id", "node", "state", "since", "error", "engine", "memory"}

    def test_people_see_what_should_run_and_not_what_went_wrong_inside(self):
        make("off", active=False)
        broken = make("broken")
        why = reasons.reason("file_missing", file="x.gguf", folder="/srv/llm/models")
        replica(broken, State.FAILED, reason=why, engine="/srv/llm/llama-server 9 1700000000000000000")
        (model,) = client_of("user").get(URL).json()["models"]
        assert (model["modelName"], model["state"], model["running"][0]["error"]) == ("broken", "failed", None)
        assert model["running"][0]["engine"] == ""
        assert_error(client_of("user").get(f"{URL}/off"), 404, "model_not_found")
        models = client_of("operator").get(URL).json()["models"]
        assert [model["modelName"] for model in models] == ["broken", "off"]
        assert "x.gguf" in models[0]["running"][0]["error"]
        assert models[0]["running"][0]["engine"].startswith("llama-server of 2023-11-1")

    def test_operators_read_reasons_in_their_language(self):
        replica(make("broken"), State.FAILED, reason=reasons.reason("file_missing", file="x.gguf", folder="models"))
        answer = client_of("operator").get(f"{URL}/broken", HTTP_ACCEPT_LANGUAGE="zh-hans")
        assert answer.json()["running"][0]["error"]

    @pytest.mark.parametrize("name", ["nobody", "..", "%00", "a%20b", "x" * 300, "%E6%A8%A1"])
    def test_an_unknown_name(self, name):
        assert_error(client_of("operator").get(f"{URL}/{name}"), 404, "model_not_found")

    def test_the_list_costs_three_queries(self, django_assert_num_queries):
        for number in range(10):
            replica(make(f"m{number}"))
        with django_assert_num_queries(3):
            assert len(selectors.model_dicts()) == 10


class TestWriting:
    def test_who(self):
        body = {"modelName": "new", "modelFile": "new.gguf"}
        assert statuses("post", URL, body) == {**forbidden_below("operator"), "operator": 201, "admin": 409}
        assert statuses("patch", f"{URL}/new", {"slots": 3}) == {
            **forbidden_below("operator"),
            "operator": 200,
            "admin": 200,
        }
        assert statuses("delete", f"{URL}/new") == {**forbidden_below("operator"), "operator": 204, "admin": 404}

    def test_create_change_remove_reach_database_and_file(self, settings):
        client = client_of("operator")
        body = {
            "modelName": "qwen2.5:7b",
            "modelFile": "q.gguf",
            "contextLength": None,
            "topP": 0.9,
            "description": "好",
        }
        created = client.post(URL, body, format="json").json()
        assert (created["topP"], created["contextLength"], created["state"]) == (0.9, None, "pending")
        assert in_file(settings)["qwen2.5:7b"]["description"] == "好"
        changed = client.patch(f"{URL}/qwen2.5:7b", {"maxTokens": 99, "threads": None}, format="json").json()
        assert (changed["maxTokens"], changed["topP"]) == (99, 0.9)
        assert in_file(settings)["qwen2.5:7b"]["maxTokens"] == 99
        assert client.delete(f"{URL}/qwen2.5:7b").status_code == 204
        assert in_file(settings) == {}
        assert not ModelConfig.objects.exists()

    def test_a_name_that_is_taken(self):
        make("tiny")
        body = {"modelName": "tiny", "modelFile": "x.gguf"}
        assert_error(client_of("operator").post(URL, body, format="json"), 409, "model_exists")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("modelName", "a/b"),
            ("modelName", ""),
            ("modelName", 7),
            ("modelFile", None),
            ("modelFile", "../../etc/passwd"),
            ("modelFile", "/etc/passwd"),
            ("modelPath", "../.."),
            ("contextLength", "4096"),
            ("contextLength", -1),
            ("maxTokens", 0),
            ("maxTokens", None),
            ("temperature", "nan"),
            ("temperature", 5.1),
            ("topP", True),
            ("threads", 1.5),
            ("active", "yes"),
            ("replicas", 0),
            ("slots", 10**30),
            ("policy", "sometimes"),
            ("cacheType", "q5"),
            ("loraAdapters", [{"file": "a", "more": 1}]),
            ("chatTemplate", 3),
            ("ubatchSize", 0),
            ("state", "ready"),
            ("model_name", "x"),
        ],
    )
    def test_wrong_values_name_their_field(self, field, value):
        body = {"modelName": "new", "modelFile": "new.gguf"} | {field: value}
        error = assert_error(client_of("operator").post(URL, body, format="json"), 400, "invalid_request")
        assert set(error["details"]) <= {field, "modelFile"}
        assert not ModelConfig.objects.exists()

    def test_what_is_needed(self):
        error = assert_error(client_of("operator").post(URL, {}, format="json"), 400, "invalid_request")
        assert set(error["details"]) == {"modelName", "modelFile"}

    @pytest.mark.parametrize("change", [{"modelName": "other"}, {"temperature": 99}, {"unknown": 1}])
    def test_a_wrong_change_changes_nothing(self, change):
        make("tiny", temperature=0.5)
        error = assert_error(client_of("operator").patch(f"{URL}/tiny", change, format="json"), 400, "invalid_request")
        assert list(error["details"]) == list(change)
        assert ModelConfig.objects.get().temperature == 0.5

    @pytest.mark.parametrize("raw", [b"[]", b"null", b"3", b"\xff", b'{"temperature": NaN}', b'{"a":1'])
    def test_bodies_that_are_no_object(self, raw):
        make("tiny")
        response = client_of("operator").generic("PATCH", f"{URL}/tiny", raw, content_type="application/json")
        assert_error(response, 400, "invalid_request")

    @pytest.mark.parametrize("method", ["patch", "delete"])
    def test_an_unknown_model(self, method):
        assert_error(getattr(client_of("operator"), method)(f"{URL}/nobody", {}, format="json"), 404, "model_not_found")
