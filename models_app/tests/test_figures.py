from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import UsageRecord
from models_app import figures
from models_app.models import ModelConfig, Replica
from models_app.states import State
from tests.api_callers import client_of

pytestmark = pytest.mark.django_db
STATS = "/api/v1/cluster/stats"


def usage(number: int, **fields: object) -> None:
    UsageRecord.objects.create(
        request_id=f"req-{number}",
        model_name="tiny",
        endpoint="chat.completions",
        status=200,
        outcome="completed",
        **fields,
    )


def test_replicas_and_todays_usage_stand_in_the_stats():
    model = ModelConfig.objects.create(name="tiny", file="tiny.gguf")
    for number, state in enumerate((State.READY, State.READY, State.FAILED, State.LOADING), 1):
        Replica.objects.create(model=model, number=number, node="box", state=state, since=timezone.now(), slots=3)
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    usage(1, prompt_tokens=10, completion_tokens=5, created_at=midnight)
    usage(2, prompt_tokens=20, completion_tokens=7, created_at=timezone.now())
    usage(3, prompt_tokens=999, completion_tokens=999, created_at=midnight - timedelta(microseconds=1))
    body = client_of("user").get(STATS).json()
    assert body["replicas"] == {"total": 4, "ready": 2, "by_state": {"ready": 2, "failed": 1, "loading": 1}}
    assert body["slots"]["total"] == 6
    # In the minute after midnight those before it count, too.
    assert body["tokens_per_second"] in {round(tokens / 60, 2) for tokens in (7, 12, 1011)}
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
