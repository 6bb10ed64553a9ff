"""The overview: what to do, figures, traffic by hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import UsageRecord, User
from llmplatform.console import runtime, traffic
from llmplatform.console.verdict import Facts, ModelFact, findings
from llmplatform.lib import chart
from tests.console.conftest import make_model, make_replica, make_usage

GIB = 1024**3


def model(**fields) -> ModelFact:
    return ModelFact(
        **{"pk": 1, "name": "tiny", "wanted": 1, "ready": 1, "coming": 0, "failed": 0, "reason": "", **fields}
    )


def facts(**fields) -> Facts:
    return Facts(**{"supervisor_alive": True, "models": [model()], **fields})


def test_all_well_is_one_line():
    found = findings(facts(disk_total=100 * GIB, disk_free=50 * GIB, memory_total=8 * GIB, memory_available=GIB))
    assert [(one.level, one.text) for one in found] == [("good", "All is well.")]


@pytest.mark.parametrize(
    ("changed", "level", "said"),
    [
        ({"supervisor_alive": False}, "bad", "supervisor"),
        ({"models": []}, "warn", "There is no model yet"),
        ({"models": [model(wanted=0, ready=0)]}, "warn", "Every model is stopped"),
        ({"models": [model(ready=0, failed=1, reason="The file is gone.")]}, "bad", "The file is gone."),
        ({"models": [model(wanted=2, failed=1, reason="Out of memory.")]}, "warn", "Out of memory."),
        ({"models": [model(ready=0, coming=1)]}, "busy", "tiny is starting"),
        ({"disk_total": 100 * GIB, "disk_free": GIB}, "bad", "disk is nearly full"),
        ({"memory_total": 16 * GIB, "memory_available": GIB // 2}, "warn", "Memory is nearly used up"),
        ({"silent_machines": ["second"]}, "warn", "second"),
        ({"unchanged_passwords": ["admin"]}, "warn", "password"),
    ],
)
def test_what_to_do(changed: dict, level: str, said: str):
    (found,) = findings(facts(**changed))
    assert found.level == level
    assert said in found.text


def test_the_gravest_comes_first():
    found = findings(facts(unchanged_passwords=["admin"], models=[model(ready=0, coming=1)], supervisor_alive=False))
    assert [one.level for one in found] == ["bad", "warn", "busy"]


def test_no_traffic_is_no_chart_of_zeros():
    assert chart.bars([0, 0], ["", ""], ["", ""], top="0", summary="") is None


def test_bars_fill_the_width_and_the_highest_the_height():
    made = chart.bars([1, 4, 0], ["a", "", ""], ["", "", ""], top="4", summary="5")
    assert made is not None
    heights = [float(bar.height) for bar in made.bars]
    assert heights == [chart.HEIGHT / 4, chart.HEIGHT, 0]
    assert all(float(bar.x[:-1]) + float(bar.width[:-1]) <= 100 for bar in made.bars)


@pytest.mark.django_db
def test_hours_add_up(django_assert_num_queries):
    now = datetime(2026, 5, 4, 13, 20, tzinfo=UTC)
    for hours in (0, 1, 1, 14, 25):
        make_usage(1)
        UsageRecord.objects.filter(request_id=f"req-{UsageRecord.objects.count() - 1}").update(
            created_at=now - timedelta(hours=hours)
        )
    found = traffic.last_hours(now)
    assert [hour.requests for hour in found][-2:] == [2, 1]
    assert sum(hour.requests for hour in found) == 4  # the one 25 hours ago is too old
    assert traffic.today(found, now) == (3, 45)  # the one 14 hours ago was yesterday
    with django_assert_num_queries(2):  # this hour and the last, whose requests may still end
        assert traffic.last_hours(now) == found


def test_empty_service(as_operator: Client):
    page = as_operator.get("/admin/").content.decode()
    assert "There is no model yet" in page
    assert "No traffic in the last 24 hours." in page
    assert '<svg class="c-chart"' not in page


def test_overview_with_data(as_operator: Client, user: User, machine, monkeypatch, django_assert_max_num_queries):
    monkeypatch.setattr("llmplatform.console.dashboard.supervisor_alive", lambda: True)
    make_replica(make_model("good"), "ready")
    make_replica(make_model("bad"), "failed", reason={"code": "file_missing", "params": {}})
    make_usage(1200, user)
    make_usage(1, user, outcome="failed", status=502)
    as_operator.get("/admin/")
    with django_assert_max_num_queries(10):  # hours gone by are not read again
        page = as_operator.get("/admin/").content.decode()
    assert "bad does not start" in page
    assert "1 of 2" in page
    assert "502" in page
    assert '<svg class="c-chart"' in page
    live = as_operator.get("/admin/live/").content.decode()
    assert "<html" not in live
    assert 'data-live="cards"' in live


def test_what_the_gateway_does_now_is_shown(as_operator: Client, monkeypatch):
    figures = {"requests_under_way": 7, "queued": 3, "tokens_per_second": 41.25}
    monkeypatch.setattr("cluster.live.figures", lambda name: figures if name == "gateway" else {})
    page = as_operator.get("/admin/").content.decode()
    assert "7 under way" in page
    assert "41.2" in page


def test_the_supervisor_is_known_by_its_process(settings, monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_HOME", str(tmp_path))
    assert runtime.supervisor_alive() is False


USAGE = "/admin/accounts/usagerecord/"


def plans_of(asked: CaptureQueriesContext) -> list[tuple[str, str]]:
    """What was asked of the usage records, and how SQLite finds it."""
    queries = [query["sql"] for query in asked.captured_queries if UsageRecord._meta.db_table in query["sql"]]
    with connection.cursor() as cursor:
        found = [cursor.execute(f"EXPLAIN QUERY PLAN {query}").fetchall() for query in queries]
    return [(query, "; ".join(row[-1] for row in rows)) for query, rows in zip(queries, found, strict=True)]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's words for it")
@pytest.mark.parametrize(
    ("path", "index"),
    [
        ("/admin/", "usage_by_time"),
        (USAGE, "usage_by_time"),
        (f"{USAGE}?model=tiny", "usage_by_model_and_time"),
        (f"{USAGE}?q=ben", "usage_by_user_and_time"),
        (f"{USAGE}?outcome__exact=failed", "usage_by_time"),
    ],
)
def test_large_tables_stay_quick(as_administrator: Client, user: User, path: str, index: str):
    """Nothing is counted or sorted that grows with the table: rows come out of an index in its order, as many as are shown."""
    make_usage(1, user)
    with CaptureQueriesContext(connection) as asked:
        assert as_administrator.get(path).status_code == 200
    plans = plans_of(asked)
    assert any(index in plan for _query, plan in plans)
    for query, plan in plans:
        assert " LIMIT " in query or "created_at>? AND created_at<?" in plan, query
        assert "SCAN accounts_usagerecord" not in plan or " ORDER BY " in query, query
        assert "B-TREE FOR ORDER BY" not in plan, query  # that for its right part sorts records of one moment
