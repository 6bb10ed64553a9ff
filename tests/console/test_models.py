"""Models, replicas and machines in the console."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from cluster.models import Node
from models_app import process, services
from models_app.models import ModelConfig, Replica, ServedName, TuningRun
from models_app.tuning.candidates import Setting
from tests.console.conftest import MODEL_FORM, make_model, make_replica

MODELS = "/admin/models_app/modelconfig/"
FORM = {**MODEL_FORM, "replicas": "2", "slots": "1"}
MISSING = {"code": "file_missing", "params": {"file": "tiny.gguf", "folder": "models"}}


@pytest.fixture
def file(settings):
    path = settings.MODELS_PATH / "tiny.gguf"
    path.write_bytes(b"GGUF")
    return path


def written(settings) -> dict[str, dict]:
    entries = json.loads(settings.MODEL_CONFIG_PATH.read_text(encoding="utf-8"))["models"]
    return {entry["modelName"]: entry for entry in entries}


def test_changing_and_deleting_keep_the_config_file_in_step(as_operator: Client, file, settings):
    made = services.create_model({"name": "tiny", "file": "tiny.gguf"})
    answer = as_operator.post(f"{MODELS}{made.pk}/change/", {**FORM, "temperature": "0.1", "name": "renamed"})
    assert answer.status_code == 302
    made.refresh_from_db()
    assert (made.name, made.temperature) == ("tiny", 0.1)
    assert written(settings)["tiny"]["temperature"] == 0.1
    make_replica(made, "ready")
    assert "tiny.gguf stays" in as_operator.get(f"{MODELS}{made.pk}/delete/").content.decode()
    as_operator.post(f"{MODELS}{made.pk}/delete/", {"post": "yes"})
    assert not ModelConfig.objects.exists()
    assert written(settings) == {}


@pytest.mark.parametrize(("field", "value"), [("file", "elsewhere.gguf"), ("top_p", "2"), ("slots", "many")])
def test_a_wrong_value_is_said_beside_its_field(as_operator: Client, file, field: str, value: str):
    made = make_model("tiny", slots=3)
    answer = as_operator.post(f"{MODELS}{made.pk}/change/", {**FORM, field: value})
    assert answer.status_code == 200
    assert field in answer.context["adminform"].form.errors
    made.refresh_from_db()
    assert made.slots == 3


NAMED = {
    "aliases": "gpt-4o，Qwen/Qwen3-4B\n x",
    "is_default": "on",
    "system_prompt": "说中文。",
    "traffic": "other 10%\n",
}


def test_names_default_prompt_and_shares(as_operator: Client, file, settings):
    make_model("other", is_default=True)
    made = services.create_model({"name": "tiny", "file": "tiny.gguf"})
    answer = as_operator.post(f"{MODELS}{made.pk}/change/", {**FORM, **NAMED})
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    made.refresh_from_db()
    assert (made.aliases, made.traffic) == (["gpt-4o", "Qwen/Qwen3-4B", "x"], {"other": 10})
    assert (made.is_default, made.system_prompt) == (True, "说中文。")
    assert not ModelConfig.objects.get(name="other").is_default
    assert written(settings)["tiny"]["traffic"] == {"other": 10}
    page = as_operator.get(f"{MODELS}{made.pk}/change/").content.decode()
    assert "gpt-4o, Qwen/Qwen3-4B, x" in page
    assert "other 10" in page
    assert "tiny (default)" in as_operator.get(MODELS).content.decode()
    again = {**FORM, "aliases": "gpt-4o, Qwen/Qwen3-4B, x", "is_default": "on", "traffic": "other 10"}
    assert as_operator.post(f"{MODELS}{made.pk}/change/", again).status_code == 302


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aliases", "other"),
        ("aliases", "a b/"),
        ("aliases", "tiny"),
        ("traffic", "other"),
        ("traffic", "nobody 10"),
        ("traffic", "other 10\nother 20"),
        ("traffic", "other 101"),
        ("traffic", "tiny 10"),
    ],
)
def test_names_and_shares_that_cannot_be(as_operator: Client, file, field: str, value: str):
    make_model("other", aliases=["taken"])
    made = services.create_model({"name": "tiny", "file": "tiny.gguf"})
    answer = as_operator.post(f"{MODELS}{made.pk}/change/", {**FORM, field: value})
    assert answer.status_code == 200
    assert list(answer.context["adminform"].form.errors) == [field]
    made.refresh_from_db()
    assert (made.aliases, made.traffic) == ([], {})


def test_a_name_that_somebody_took_a_moment_before_is_told(as_operator: Client, file):
    """It is claimed, and in no model's list yet."""
    ServedName.objects.create(name="quick", model=make_model("other"))
    made = services.create_model({"name": "tiny", "file": "tiny.gguf"})
    address = f"{MODELS}{made.pk}/change/"
    answer = as_operator.post(address, {**FORM, "aliases": "quick"}, follow=True)
    assert answer.redirect_chain[-1][0] == address
    assert "Somebody else has just given one of these names" in answer.content.decode()
    made.refresh_from_db()
    assert made.aliases == []


def test_the_form_offers_the_files_that_are_there(as_operator: Client, file):
    made = make_model("other")
    assert "tiny.gguf" in as_operator.get(f"{MODELS}{made.pk}/change/").content.decode()


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


def test_back_to_the_last_version(as_operator: Client):
    model = make_model("tiny", context_length=512)
    services.update_model("tiny", {"context_length": 1024, "description": "new"})
    as_operator.post(f"{MODELS}{model.pk}/go_back/", {"_form_submitted": "on"})
    model.refresh_from_db()
    assert (model.context_length, model.description) == (512, "new"), "what an engine sees, nothing else"


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


def test_the_panel_shows_taken_beside_planned(as_operator: Client, file):
    model = make_model("tiny")
    replica = make_replica(model, "ready")
    Replica.objects.filter(pk=replica.pk).update(pid=None, memory_planned=300 * 1024**2, memory_measured=200 * 1024**2)
    assert "200.0\xa0MB of 300.0\xa0MB planned" in as_operator.get(f"{MODELS}{model.pk}/live/").content.decode()


def test_tuning_is_asked_for_and_shown_live(as_operator: Client, file):
    model = make_model("tiny")
    page = f"{MODELS}{model.pk}"
    wish = {"_form_submitted": "on", "aim": "throughput", "clients": "4", "seconds": "120", "apply": "on"}
    assert as_operator.post(f"{page}/tune/", {**wish, "seconds": "5"}).status_code == 200, "too short: asked again"
    assert not TuningRun.objects.exists()
    as_operator.post(f"{page}/tune/", wish)
    run = TuningRun.objects.get()
    assert (run.stage, run.clients, run.seconds, run.apply) == ("wanted", 4, 120, True)
    TuningRun.objects.update(
        stage="running",
        progress=0.42,
        rows=[
            {
                "settings": asdict(Setting(threads=3)), "tokensPerSecond": 12.5, "slowest": 3.0, "memory": 2**30,
                "runs": 1, "problem": None,
            }
        ],
    )  # fmt: skip
    for address in (f"{page}/change/", f"{page}/live/"):
        text = as_operator.get(address).content.decode()
        assert "42%" in text
        assert "threads 3" in text
    as_operator.post(f"{page}/stop_tuning/", {"_form_submitted": "on", "post": "yes"})
    run.refresh_from_db()
    assert run.stop_wanted
