from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway import models_directory
from gateway.models_directory import ModelsDirectory
from tests.api_callers import client_of


@pytest.mark.django_db
def test_slots_and_queue_of_this_process_stand_in_the_stats(monkeypatch):
    found = ModelsDirectory()
    found.pools = {"a": SimpleNamespace(busy=2, queued=0, slots=2), "b": SimpleNamespace(busy=1, queued=4, slots=1)}
    monkeypatch.setattr(models_directory, "_directories", {object(): found})
    body = client_of("user").get("/api/v1/cluster/stats").json()
    assert body["slots"]["in_use"] == 3
    assert body["queue"]["waiting"] == 4
