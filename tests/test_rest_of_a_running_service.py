"""The REST endpoints on a real service: what they say about processes, models and logs is what is there."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.running_service import Service, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(service: Service):
    with service.client(service.token()) as client:
        yield client


@pytest.fixture
def model(client) -> str:
    return client.get("/api/v1/models").json()["models"][0]["modelName"]


def test_stop_and_start_answer_when_it_is_so(client, model, service):
    stopped = client.post(f"/api/v1/models/{model}/stop?wait=30")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "stopped")
    assert service.engines() == []
    started = client.post(f"/api/v1/models/{model}/start?wait=60")
    assert (started.status_code, started.json()["state"]) == (200, "ready")
    assert len(service.engines()) == 1


def test_restart_answers_only_when_another_process_is_ready(client, model, service):
    (before,) = service.engines()
    assert client.post(f"/api/v1/models/{model}/restart?wait=60").json()["state"] == "ready"
    assert {engine.pid for engine in service.engines()} - {before.pid}
    wait_for(lambda: before not in service.engines() and len(service.engines()) == 1, "the one before to be gone")


def test_system_names_each_of_our_processes_with_its_memory(client, model, service):
    def told() -> dict[str, Any] | None:
        rows = {row["name"]: row for row in client.get("/api/v1/monitoring/system").json()["processes"]}
        there = {process.pid for process in service.processes()}
        return rows if {row["pid"] for row in rows.values()} == there else None

    # A child that looks at a model's file may run for a moment.
    rows = wait_for(told, "each process is told, and no other")
    (replica,) = (name for name in rows if re.fullmatch(rf"{model}/\d+", name))
    assert set(rows) == {"serve", "web", "supervisor", replica}
    assert all(row["rss"] > 2**20 for row in rows.values())


def test_stats_and_metrics(client, model, service):
    stats = client.get("/api/v1/cluster/stats").json()
    assert stats["nodes"] == {"total": 1, "alive": 1, "drained": 0}
    assert stats["replicas"]["ready"] == 1
    assert stats["slots"]["total"] > 0
    assert "django_http_requests_total" in httpx.get(f"{service.base_url}/metrics", timeout=30).text


def test_a_drained_machine_takes_no_request_until_it_is_resumed(client, model):
    node = client.get("/api/v1/cluster/nodes").json()["nodes"][0]["id"]
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    client.post(f"/api/v1/cluster/nodes/{node}/drain")
    try:
        wait_for(lambda: client.post("/v1/chat/completions", json=body).status_code == 503, "the gateway to see it")
    finally:
        client.post(f"/api/v1/cluster/nodes/{node}/resume")
    wait_for(lambda: client.post("/v1/chat/completions", json=body).status_code == 200, "the gateway to see it")


def test_following_the_engines_log(client, model):
    with client.stream("GET", f"/api/v1/models/{model}/logs", params={"follow": 1, "lines": 1}) as response:
        events = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
        assert next(events)["replica"] == 1


def test_the_services_own_log(client, model):
    entries = client.get("/api/v1/logs", params={"source": "supervisor", "q": f"{model}/1: ready", "lines": 1}).json()
    (entry,) = entries["entries"]
    assert entry["level"] == "INFO"
