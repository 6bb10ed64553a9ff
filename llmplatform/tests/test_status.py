"""What ``manage.py status`` says of each part."""

from __future__ import annotations

import os

import pytest
from django.utils import timezone

from llmplatform import settings as project
from llmplatform.lib import process_identity
from llmplatform.service import local_client, run_folder, status
from llmplatform.service.run_folder import ProcessRecord, Running
from models_app.models import ModelConfig, Replica
from models_app.states import State


@pytest.fixture
def running():
    own = ProcessRecord(os.getpid(), process_identity.started_at(os.getpid()))
    return Running(own.pid, own.started, "http://localhost:22000", "1", {"web": own, "supervisor": own})


@pytest.fixture
def readyz(monkeypatch):
    """Sets what the web server answers."""

    def answers(code: int, body: dict | None = None) -> None:
        monkeypatch.setattr(local_client, "get_json", lambda path, timeout=5.0: (code, body or {}))

    answers(200)
    return answers


def wrong(running: Running) -> list[str]:
    return [row.name for row in status.rows(running) if not row.well]


@pytest.mark.django_db
def test_all_is_well(running, readyz):
    assert wrong(running) == []


@pytest.mark.django_db
def test_a_child_that_is_not_there_is_wrong(running, readyz):
    del running.children["supervisor"]
    running.children["web"] = ProcessRecord(os.getpid(), 1.0)
    assert wrong(running) == ["web", "supervisor"]


@pytest.mark.django_db
def test_no_answer_and_not_ready_are_wrong(running, readyz):
    readyz(0)
    assert wrong(running) == ["address"]
    readyz(503, {"database": False, "supervisor": True})
    (row,) = [row for row in status.rows(running) if not row.well]
    assert "database" in row.text
    assert "supervisor" not in row.text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "well"), [(State.READY, True), (State.LOADING, True), (State.PENDING, True), (State.FAILED, False)]
)
def test_a_model_is_wrong_only_when_it_failed(running, readyz, state, well):
    model = ModelConfig.objects.create(name="a-model", file="a.gguf")
    Replica.objects.create(model=model, number=1, node="here", state=state, since=timezone.now())
    assert wrong(running) == ([] if well else ["a-model"])


@pytest.mark.django_db
def test_which_builds_of_the_engine_run_is_told(running, readyz):
    model = ModelConfig.objects.create(name="a-model", file="a.gguf", replicas=3)
    for number, (state, engine) in enumerate(
        [(State.READY, "embedded 1"), (State.READY, "embedded 2"), (State.LOADING, "x")]
    ):
        Replica.objects.create(
            model=model, number=number, node="here", state=state, since=timezone.now(), engine=engine
        )
    (row,) = [row for row in status.rows(running) if row.name == "a-model"]
    assert row.text == "2 of 3 ready; built-in 1; built-in 2"


@pytest.mark.django_db
def test_a_model_that_should_not_run_is_fine(running, readyz):
    ModelConfig.objects.create(name="a-model", file="a.gguf", active=False)
    assert wrong(running) == []


def test_the_running_service_is_asked_wherever_it_listens(running, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_HOME", str(tmp_path))
    run_folder.folder().mkdir()
    assert local_client.connect(1).port == project.SERVER_PORT
    run_folder.write(tmp_path, running)
    assert local_client.connect(1).port == 22000
