from __future__ import annotations

import json
import os

import httpx
import psutil
import pytest
from django.core.asgi import get_asgi_application

from cluster import live, system
from cluster.checks import metrics_allow
from llmplatform.lib import process_identity
from llmplatform.lib.proxies import BehindProxies, parse_networks
from tests.api_callers import client_of, forbidden_below, statuses

pytestmark = pytest.mark.django_db
SYSTEM, SUMMARY, METRICS = "/api/v1/monitoring/system", "/api/v1/monitoring/metrics", "/metrics"


@pytest.mark.parametrize("url", [SYSTEM, SUMMARY])
def test_only_operators(url):
    assert statuses("get", url) == {**forbidden_below("operator"), "operator": 200, "admin": 200}


def test_system_tells_this_machine_and_our_processes(settings, tmp_path, monkeypatch):
    settings.RUN_DIR = tmp_path
    parent = psutil.Process(os.getpid())
    engine = {"name": "tiny/1", "pid": os.getppid(), "started": process_identity.started_at(os.getppid())}
    gone = {"name": "tiny/2", "pid": os.getppid(), "started": engine["started"] - 100}
    monkeypatch.setitem(live._sources, "engines", lambda: {"processes": [engine, gone]})
    (tmp_path / "serve.json").write_text(json.dumps({"pid": parent.pid}))
    body = client_of("operator").get(SYSTEM).json()
    assert 0 <= body["cpu"]["percent"] <= 100
    assert body["cpu"]["cores"]["usable"] <= body["cpu"]["cores"]["logical"]
    assert body["memory"]["total"] > body["memory"]["available"] > 0
    assert body["disk"]["models"]["free"] > 0
    assert len(body["load"]) == 3
    rows = {row["name"]: row for row in body["processes"]}
    # Other tests may have a service running: a child of this process.
    assert set(rows) - {"child"} == {"serve", "tiny/1"}
    assert rows["serve"]["rss"] > 1_000_000


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 99999999}', "null"])
def test_a_broken_run_file_leaves_at_least_this_process(settings, tmp_path, text):
    settings.RUN_DIR = tmp_path
    (tmp_path / "serve.json").write_text(text)
    assert [row["pid"] for row in system.own_processes()] == [os.getpid()]


def test_cpu_per_cent_is_since_the_last_reading_half_a_second_ago():
    meter = system.CpuMeter()
    assert meter.percent("p", now=100.0, used=10.0, started=0.0) == 10.0
    assert meter.percent("p", now=100.2, used=10.2, started=0.0) == 10.0  # too soon: the last figure
    assert meter.percent("p", now=102.0, used=11.0, started=0.0) == 50.0
    meter.forget_all_but([])
    assert meter.percent("p", now=110.0, used=11.0, started=0.0) == 10.0


def test_the_tightest_memory_limit_of_the_container_counts(tmp_path, monkeypatch):
    inner = tmp_path / "service" / "unit"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    monkeypatch.setattr(system, "_cgroup_folders", lambda: [inner, inner.parent, tmp_path])
    assert system.memory_limit() == 1_000_000
    assert system.memory_figures()["limit"] == 1_000_000


def test_the_summary_is_json_and_on_request_prometheus_text():
    client = client_of("operator")
    body = client.get(SUMMARY).json()
    assert {"nodes", "slots", "queue", "totals", "system", "http"} <= set(body)
    text = client.get(SUMMARY, HTTP_ACCEPT="text/plain")
    assert text["Content-Type"].startswith("text/plain")
    assert b"django_http_requests_before_middlewares_total" in text.content


def test_errors_are_json_even_for_a_client_that_wants_text():
    response = client_of("user").get(SUMMARY, HTTP_ACCEPT="text/plain")
    assert response.status_code == 403
    assert json.loads(response.content)["error"]["code"] == "permission_denied"


@pytest.mark.parametrize(
    ("address", "allowed", "status"),
    [
        ("127.0.0.1", ["127.0.0.1", "::1"], 200),
        ("::ffff:127.0.0.1", ["127.0.0.1"], 200),
        ("10.1.2.3", ["10.0.0.0/8"], 200),
        ("10.1.2.3", ["127.0.0.1"], 401),
        ("127.0.0.1", [], 401),
        ("", ["127.0.0.1"], 401),
        ("unix:", ["127.0.0.1"], 401),
    ],
)
def test_metrics_by_address(settings, address, allowed, status):
    settings.METRICS_ALLOW = allowed
    assert client_of("anyone").get(METRICS, REMOTE_ADDR=address).status_code == status


@pytest.mark.parametrize(
    ("peer", "header", "value", "status"),
    [
        ("203.0.113.9", "X-Forwarded-For", "127.0.0.1", 401),  # a header gives no right
        ("127.0.0.1", "X-Forwarded-For", "203.0.113.9", 401),  # and a proxy here that nobody named opens nothing
        ("127.0.0.1", "X-Forwarded-For", "127.0.0.1", 401),
        ("127.0.0.1", "X-Real-IP", "127.0.0.1", 401),
        ("127.0.0.1", "Forwarded", "for=127.0.0.1", 401),
        ("10.0.0.1", "X-Forwarded-For", "127.0.0.1", 200),  # a named one is believed
        ("10.0.0.1", "X-Forwarded-For", "203.0.113.9", 401),
    ],
)
@pytest.mark.django_db(transaction=True)
async def test_metrics_through_a_proxy(settings, peer, header, value, status):
    settings.METRICS_ALLOW = ["127.0.0.1"]
    application = BehindProxies(get_asgi_application(), parse_networks("", ["10.0.0.1"]))
    transport = httpx.ASGITransport(app=application, client=(peer, 40000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get(METRICS, headers={header: value})).status_code == status


def test_metrics_for_operators_from_anywhere(settings):
    settings.METRICS_ALLOW = []
    assert statuses("get", METRICS) == {**forbidden_below("operator"), "operator": 200, "admin": 200}


def test_prometheus_own_accept_header_is_understood(settings):
    settings.METRICS_ALLOW = ["127.0.0.1"]
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    response = client_of("anyone").get(METRICS, HTTP_ACCEPT=accept)
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")


def test_a_wrong_metrics_allow_is_told_at_start(settings):
    settings.METRICS_ALLOW = ["127.0.0.1", "10.0.0.0/99", "localhost"]
    assert ["10.0.0.0/99" in str(p.msg) or "localhost" in str(p.msg) for p in metrics_allow(None)] == [True, True]
