"""Models, replicas and machines in the console."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from cluster.models import Node
from models_app import process
from models_app.models import ModelConfig
from tests.console.conftest import make_model, make_replica

MODELS = "/admin/models_app/modelconfig/"
FORM = {
    "name": "tiny", "file": "tiny.gguf", "description": "A small one", "active": "on", "replicas": "2", "slots": "1",
    "context_length": "", "threads": "", "gpu_layers": "0", "policy": "always", "max_tokens": "100", "temperature": "0.5",
    "top_p": "0.9", "repeat_penalty": "1.0",
}  # fmt: skip
MISSING = {"code": "file_missing", "params": {"file": "tiny.gguf", "folder": "models"}}


@pytest.fixture
def file(settings):
    path = settings.MODELS_PATH / "tiny.gguf"
    path.write_bytes(b"GGUF")
    return path


def written(settings) -> dict[str, dict]:
    entries = json.loads(settings.MODEL_CONFIG_PATH.read_text(encoding="utf-8"))["models"]
    return {entry["modelName"]: entry for entry in entries}


def test_adding_a_model_writes_the_config_file_too(as_operator: Client, file, settings):
    assert as_operator.post(f"{MODELS}add/", FORM).status_code == 302
    made = ModelConfig.objects.get(name="tiny")
    assert (made.file, made.replicas, made.context_length, made.active) == ("tiny.gguf", 2, None, True)
    assert written(settings)["tiny"]["modelFile"] == "tiny.gguf"


def test_changing_and_deleting_keep_the_config_file_in_step(as_operator: Client, file, settings):
    as_operator.post(f"{MODELS}add/", FORM)
    made = ModelConfig.objects.get(name="tiny")
    answer = as_operator.post(f"{MODELS}{made.pk}/change/", {**FORM, "temperature": "0.1", "name": "renamed"})
    assert answer.status_code == 302
    made.refresh_from_db()
    assert (made.name, made.temperature) == ("tiny", 0.1)
    assert written(settings)["tiny"]["temperature"] == 0.1
    make_replica(made, "ready")
    assert "tiny/1" in as_operator.get(f"{MODELS}{made.pk}/delete/").content.decode()
    as_operator.post(f"{MODELS}{made.pk}/delete/", {"post": "yes"})
    assert not ModelConfig.objects.exists()
    assert written(settings) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "../up"), ("name", ""), ("file", "elsewhere.gguf"), ("top_p", "2"), ("replicas", "0"), ("slots", "many")],
)
def test_a_wrong_value_is_said_beside_its_field(as_operator: Client, file, field: str, value: str):
    answer = as_operator.post(f"{MODELS}add/", {**FORM, field: value})
    assert answer.status_code == 200
    assert field in answer.context["adminform"].form.errors
    assert not ModelConfig.objects.exists()


def test_a_name_is_taken_once(as_operator: Client, file):
    make_model("tiny")
    assert "name" in as_operator.post(f"{MODELS}add/", FORM).context["adminform"].form.errors


def test_the_form_offers_the_files_that_are_there(as_operator: Client, file):
    assert "tiny.gguf" in as_operator.get(f"{MODELS}add/").content.decode()
    file.unlink()
    assert "no .gguf file there yet" in as_operator.get(f"{MODELS}add/").content.decode()


@pytest.mark.parametrize(("action", "before", "after"), [("start", False, True), ("stop", True, False)])
def test_start_and_stop(as_operator: Client, settings, action: str, before: bool, after: bool):
    model = make_model("tiny", active=before)
    url = f"{MODELS}{model.pk}/{action}/"
    assert model.name in as_operator.get(url).content.decode()
    model.refresh_from_db()
    assert model.active is before  # looking is not doing
    answer = as_operator.post(url, {"_form_submitted": "on"}, headers={"HX-Request": "true"})
    assert answer["HX-Redirect"] == MODELS
    model.refresh_from_db()
    assert model.active is after
    assert written(settings)["tiny"]["active"] is after


def test_restart(as_operator: Client):
    model = make_model("tiny")
    as_operator.post(f"{MODELS}{model.pk}/restart/", {"_form_submitted": "on"})
    model.refresh_from_db()
    assert model.restart_number == 1


def test_bulk_actions(as_operator: Client):
    models = [make_model(name) for name in ("a", "b")]
    data = {"_selected_action": [model.pk for model in models]}
    as_operator.post(MODELS, {"action": "stop_chosen", **data})
    assert not ModelConfig.objects.filter(active=True).exists()
    as_operator.post(MODELS, {"action": "start_chosen", **data})
    assert ModelConfig.objects.filter(active=True).count() == 2
    as_operator.post(MODELS, {"action": "restart_chosen", **data})
    assert set(ModelConfig.objects.values_list("restart_number", flat=True)) == {1}


def test_several_are_deleted_at_once(as_operator: Client, settings):
    models = [make_model(name) for name in ("a", "b")]
    data = {"action": "delete_selected", "_selected_action": [model.pk for model in models]}
    as_operator.post(MODELS, {**data, "post": "yes"})
    assert not ModelConfig.objects.exists()
    assert written(settings) == {}


def test_users_cannot_act(client: Client, user):
    client.force_login(user)
    model = make_model("tiny")
    assert client.post(f"{MODELS}{model.pk}/stop/", {"_form_submitted": "on"}).status_code in {302, 403}
    model.refresh_from_db()
    assert model.active


def test_the_list_says_what_runs_and_why_not(as_operator: Client, django_assert_max_num_queries):
    make_replica(make_model("good"), "ready")
    make_replica(make_model("bad"), "failed", reason=MISSING)
    make_model("off", active=False)
    for number in range(10):
        make_replica(make_model(f"more{number}"), "loading")
    with django_assert_max_num_queries(6):
        page = as_operator.get(MODELS).content.decode()
    assert "1 of 1" in page
    assert "tiny.gguf" in page
    assert "It was stopped by hand." in page
    with django_assert_max_num_queries(4):
        parts = as_operator.get(f"{MODELS}live/").content.decode()
    assert parts.count("data-live=") == 3 * 13


def test_the_detail_shows_replicas_reason_and_log(as_operator: Client, settings):
    model = make_model("tiny", replicas=2)
    make_replica(model, "ready", 1)
    make_replica(model, "failed", 2, MISSING)
    log = process.log_path("tiny", 2)
    log.parent.mkdir(parents=True)
    log.write_text("one\n<b>error</b>: no such file\n", encoding="utf-8")
    page = as_operator.get(f"{MODELS}{model.pk}/change/").content.decode()
    assert "replicas ready: 1 of 2" in page
    assert "&lt;b&gt;error&lt;/b&gt;: no such file" in page
    assert "tiny/2" in as_operator.get(f"{MODELS}{model.pk}/live/").content.decode()
    assert as_operator.get(f"{MODELS}999/live/").status_code == 404


def test_replicas_are_listed_in_few_queries(as_operator: Client, django_assert_max_num_queries):
    for number in range(20):
        make_replica(make_model(f"m{number}"), "ready")
    with django_assert_max_num_queries(6):
        page = as_operator.get("/admin/models_app/replica/").content.decode()
    assert "m19/1" in page


# -- machines ------------------------------------------------------------------------------------------------------


def test_machines_are_drained_and_resumed(as_operator: Client, machine: Node):
    url = f"/admin/cluster/node/{machine.pk}"
    as_operator.get(f"{url}/drain/")
    machine.refresh_from_db()
    assert not machine.drained
    as_operator.post(f"{url}/drain/", {"_form_submitted": "on"})
    machine.refresh_from_db()
    assert machine.drained
    assert "drained" in as_operator.get("/admin/cluster/node/").content.decode()
    as_operator.post(f"{url}/resume/", {"_form_submitted": "on"})
    machine.refresh_from_db()
    assert not machine.drained


def test_a_silent_machine_is_told(as_operator: Client, machine: Node, django_assert_max_num_queries):
    Node.objects.filter(pk=machine.pk).update(last_seen=timezone.now() - timedelta(minutes=10))
    with django_assert_max_num_queries(5):
        page = as_operator.get("/admin/cluster/node/").content.decode()
    assert "not heard from" in page
    assert "10.0.0.5:8080" in page
