"""Tuning in a running service and as a command: real engines, little time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.running_service import Service, command_line, running, runs, wait_for

pytestmark = pytest.mark.e2e
MODEL = "smollm2-135m-instruct"
PATH = f"/api/v1/models/{MODEL}/tuning"


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("tuning") / "home") as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def newest(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get(PATH).json()["tuning"][0]
    return found


def measuring(service: Service) -> list[psutil.Process]:
    return [process for process in service.processes() if "tunemodel" in command_line(process)]


def trial_engines(service: Service) -> list[psutil.Process]:
    mine = {process.pid for process in measuring(service)}
    return [engine for engine in service.engines() if parent_of(engine) in {*mine, 1}]


def parent_of(process: psutil.Process) -> int:
    """0: it has ended since it was found."""
    try:
        return process.ppid()
    except psutil.Error:
        return 0


def start(service: Service, client: httpx.Client) -> None:
    assert client.post(PATH, json={"seconds": 300, "clients": 1}).status_code == 202
    assert client.post(PATH, json={}).json()["error"]["code"] == "tuning_under_way"
    wait_for(lambda: newest(client)["state"] == "running" and trial_engines(service), "an engine is measured", 60)


def test_the_command_measures_and_prints(service: Service):
    done = service.command("tunemodel", MODEL, "--seconds", "10", "--clients", "1", "--json", timeout=150)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    first = result["rows"][0]
    assert first["runs"] >= 2, "the defaults are measured first and last again"
    assert first["tokensPerSecond"] > 0
    assert first["memory"] > 50_000_000
    assert result["gain"] >= 1
    assert result["chosen"]["slots"] >= 1
    assert result["machine"]["cores"] >= 1
    assert result["summary"]
    assert not measuring(service)


def test_the_supervisor_carries_it_out_and_stops_it_when_asked(service: Service, client: httpx.Client):
    start(service, client)
    (child,) = measuring(service)
    assert child.nice() > 0
    assert client.delete(PATH).status_code == 202
    wait_for(lambda: newest(client)["state"] == "stopped" and not measuring(service), "it has stopped", 60)
    assert not trial_engines(service)
    assert len(service.engines()) == 1, "the model's own replica goes on"
    assert client.delete(PATH).status_code == 204


def test_killed_in_the_middle_the_row_says_so_and_no_engine_is_left(service: Service, client: httpx.Client):
    start(service, client)
    engines = trial_engines(service)
    for child in measuring(service):
        child.kill()
    wait_for(lambda: newest(client)["state"] == "failed", "the row says so")
    assert "was killed" in newest(client)["summary"][0]
    wait_for(lambda: not any(runs(engine) for engine in engines), "no engine is left")


def test_a_model_that_is_not_there_is_told(service: Service, client: httpx.Client):
    done = service.command("tunemodel", "nobody")
    assert done.returncode == 1
    assert "There is no model" in done.stderr
    assert client.post("/api/v1/models/nobody/tuning", json={}).status_code == 404


def test_the_end_of_the_service_ends_a_tuning(tmp_path: Path):
    with running(tmp_path / "home") as service, service.client() as client:
        start(service, client)
