"""Entries of model_config.json that cannot work, beside one that can: the good one serves, the others say why they do not."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running_service import Service, new_service, put_starter_model, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GOOD = "smollm2-135m-instruct"
# What each failed model's reason must speak of.
BROKEN = {
    "missing": "missing.gguf",
    "none": "not a GGUF file",
    "cut": "cut short",
    "empty": "not a GGUF file",
    "folder": "folder.gguf",
    "huge": "contextLength",
}


def write_models(folder: Path) -> None:
    [good] = folder.glob("*.gguf")
    data = good.read_bytes()
    (folder / "none.gguf").write_bytes(b"hello world" * 1000)
    (folder / "cut.gguf").write_bytes(data[: len(data) // 2])
    (folder / "empty.gguf").touch()
    (folder / "folder.gguf").mkdir()
    entries = [{"modelName": GOOD, "modelFile": good.name, "contextLength": 2048}]
    entries += [{"modelName": name, "modelFile": f"{name}.gguf"} for name in BROKEN if name != "huge"]
    entries.append({"modelName": "huge", "modelFile": good.name, "contextLength": 16_777_216, "slots": 8})
    entries.append({"modelName": "outside", "modelFile": "../../etc/passwd"})
    (folder / "model_config.json").write_text(json.dumps({"models": entries}, indent=1))


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    service = new_service(tmp_path_factory.mktemp("broken"), LANG="zh_CN.UTF-8")
    put_starter_model(service.home / "models")
    write_models(service.home / "models")
    try:
        with socket.create_server(("127.0.0.1", service.model_port)):  # the first port for models is taken
            service.start()
            wait_for(lambda: service.model_is_ready(GOOD), "the good model", 120)
        service.environment["LANG"] = "C.UTF-8"
        yield service
    finally:
        service.stop()
        service.kill_what_is_left()


@pytest.fixture(scope="module")
def client(service):
    with service.client() as opened:
        yield opened


def answers(client, model: str) -> bool:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    return client.post("/v1/chat/completions", json=body).status_code == 200


def test_the_good_one_answers_from_the_next_port(service, client) -> None:
    assert answers(client, GOOD)
    [engine] = service.engines()
    assert str(service.model_port) not in engine.cmdline()


@pytest.mark.parametrize("name", BROKEN)
def test_the_reason_is_told_by_status_api_and_log(service, client, name) -> None:
    wait_for(lambda: client.get(f"/api/v1/models/{name}").json()["state"] == "failed", "its failure")
    [running] = client.get(f"/api/v1/models/{name}").json()["running"]
    assert BROKEN[name] in running["error"]
    status = service.command("status")
    assert status.returncode == 1
    [line] = [line for line in status.stdout.splitlines() if line.startswith(f"✗ {name} ")]
    assert BROKEN[name] in line
    assert any(f"{name}/1" in entry["message"] for entry in service.log() if entry["level"] == "ERROR")
    body = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
    refused = client.post("/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_not_available")


def test_an_entry_that_cannot_be_one_is_told_once_with_its_line(service) -> None:
    path = service.home / "models" / "model_config.json"
    number = path.read_text().splitlines().index('   "modelName": "outside",')  # its "{" stands one line before
    shown = [line for line in service.output.splitlines() if "outside" in line]
    assert len(shown) == 1, service.output
    assert str(number) in shown[0]
    status = service.command("status").stdout
    assert any("outside" in line and str(number) in line for line in status.splitlines()), status


def test_a_model_added_as_the_guide_says_runs_without_a_restart_and_after_one(service, client) -> None:
    models = service.home / "models"
    os.link(next(models.glob("SmolLM2*.gguf")), models / "second.gguf")
    document = json.loads((models / "model_config.json").read_text())
    document["models"].append({"modelName": "second", "modelFile": "second.gguf", "contextLength": 512, "slots": 1})
    (models / "model_config.json").write_text(json.dumps(document, indent=2))
    synced = service.command("syncmodels")
    assert "second" in synced.stdout
    assert "Traceback" not in synced.stderr
    wait_for(lambda: service.model_is_ready("second"), "the second model", 120)
    assert answers(client, "second")
    assert answers(client, GOOD)
    assert service.stop() == 0
    service.start()
    for name in (GOOD, "second"):
        wait_for(lambda name=name: service.model_is_ready(name), name, 120)
    assert len(service.engines()) == 2
