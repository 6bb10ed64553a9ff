from __future__ import annotations

import pytest
from django.utils import timezone

from cluster import services
from models_app.models import ModelConfig, Replica
from models_app.selectors import serving_snapshot
from models_app.states import State

pytestmark = pytest.mark.django_db


def test_replicas_of_a_drained_machine_get_nothing_new_until_it_is_resumed(django_assert_num_queries):
    master = services.register_this_machine().name
    model = ModelConfig.objects.create(name="tiny", file="tiny.gguf")
    for number, node in enumerate((master, "elsewhere"), 1):
        Replica.objects.create(model=model, number=number, node=node, state=State.READY, since=timezone.now(), port=1)

    def states() -> list[str]:
        with django_assert_num_queries(2):
            return [replica.state for replica in serving_snapshot()["tiny"].replicas]

    assert states() == ["ready", "ready"]
    services.drain(master)
    assert states() == ["draining", "ready"]
    services.resume(master)
    assert states() == ["ready", "ready"]
