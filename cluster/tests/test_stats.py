from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from cluster import live, services
from cluster.models import Node
from tests.api_callers import assert_error, client_of

pytestmark = pytest.mark.django_db
URL = "/api/v1/cluster/stats"


def test_people_may_read_it_and_others_may_not():
    assert_error(client_of("anyone").get(URL), 401, "invalid_api_key")
    for role in ("user", "operator", "admin"):
        assert client_of(role).get(URL).status_code == 200


def test_machines_are_counted_by_what_was_last_heard_of_them():
    services.register_this_machine()
    now = timezone.now()
    Node.objects.create(name="fresh", host="10.0.0.2", port=1, last_seen=now - timedelta(seconds=5), drained=True)
    Node.objects.create(name="silent", host="10.0.0.3", port=1, last_seen=now - timedelta(seconds=16))
    Node.objects.create(name="never", host="10.0.0.4", port=1)
    assert client_of("user").get(URL).json()["nodes"] == {"total": 4, "alive": 2, "drained": 1}


def test_figures_of_the_apps_above_are_shown(monkeypatch):
    registered = {
        "replicas": {"by_state": {"ready": 2, "failed": 1}, "slots": 4},
        "gateway": {"slots_in_use": 3, "queued": 5, "requests_under_way": 8},
        "usage": {
            "requests_today": 7,
            "prompt_tokens_today": 70,
            "completion_tokens_today": 30,
            "tokens_per_second": 12.347,
        },
    }
    for name, figures in registered.items():
        monkeypatch.setitem(live._sources, name, lambda figures=figures: figures)
    body = client_of("user").get(URL).json()
    assert body["replicas"] == {"total": 3, "ready": 2, "by_state": {"ready": 2, "failed": 1}}
    assert body["slots"] == {"total": 4, "in_use": 3}
    assert body["queue"] == {"waiting": 5, "under_way": 8}
    assert body["tokens_per_second"] == 12.35
    assert body["totals"]["prompt_tokens_today"] == 70


def test_nothing_registered_is_zero_not_an_error(monkeypatch):
    monkeypatch.setattr(live, "_sources", {})
    body = client_of("user").get(URL).json()
    assert body["slots"] == {"total": 0, "in_use": 0}
    assert body["totals"]["requests_today"] == 0
