from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import UsageRecord, User
from models_app import figures
from models_app.models import ModelConfig, Replica
from models_app.states import State
from tests.api_callers import client_of

pytestmark = pytest.mark.django_db
STATS = "/api/v1/cluster/stats"
NOON = datetime(2026, 11, 18, 12, tzinfo=UTC)


def usage(number: int, **fields: object) -> None:
    UsageRecord.objects.create(
        request_id=f"req-{number}",
        model_name="tiny",
        endpoint="chat.completions",
        status=200,
        outcome="completed",
        **fields,
    )


def test_replicas_and_todays_usage_stand_in_the_stats(monkeypatch):
    monkeypatch.setattr(timezone, "now", lambda: NOON)
    model = ModelConfig.objects.create(name="tiny", file="tiny.gguf")
    for number, state in enumerate((State.READY, State.READY, State.FAILED, State.LOADING), 1):
        Replica.objects.create(model=model, number=number, node="box", state=state, since=timezone.now(), slots=3)
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    usage(1, prompt_tokens=10, completion_tokens=5, created_at=midnight)
    usage(2, prompt_tokens=20, completion_tokens=7, created_at=timezone.now())
    usage(3, prompt_tokens=999, completion_tokens=999, created_at=midnight - timedelta(microseconds=1))
    client = APIClient()
    client.force_authenticate(User.objects.create(username="una"))  # a token knows the real time
    body = client.get(STATS).json()
    assert body["replicas"] == {"total": 4, "ready": 2, "by_state": {"ready": 2, "failed": 1, "loading": 1}}
    assert body["slots"]["total"] == 6
    assert body["tokens_per_second"] == round(7 / 60, 2)
    assert body["totals"] == {"requests_today": 2, "prompt_tokens_today": 30, "completion_tokens_today": 12}


def test_the_stats_cost_a_few_queries_whatever_there_is(django_assert_num_queries):
    model = ModelConfig.objects.create(name="tiny", file="tiny.gguf")
    for number in range(20):
        Replica.objects.create(model=model, number=number, node="box", state=State.READY, since=timezone.now())
        usage(number, created_at=timezone.now())
    client = client_of("user")
    with django_assert_num_queries(5):  # who calls, machines, replicas, usage of today and of the last minute
        assert client.get(STATS).status_code == 200


def test_engine_processes_are_those_with_a_known_start():
    model = ModelConfig.objects.create(name="tiny", file="tiny.gguf")
    common = {"model": model, "node": "box", "since": timezone.now()}
    Replica.objects.create(number=1, pid=10, pid_started=5.0, **common)
    Replica.objects.create(number=2, pid=11, **common)
    assert figures.engine_processes() == {"processes": [{"name": "tiny/1", "pid": 10, "started": 5.0}]}
