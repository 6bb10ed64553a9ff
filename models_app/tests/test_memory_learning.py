"""What running replicas take is recorded, and counts in the next plan."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from django.utils import timezone

from llmplatform.lib import process_identity
from models_app import memory_learning, services
from models_app.models import MemoryMeasurement, ModelConfig, Replica
from models_app.preparation import Circumstances, prepare
from models_app.selectors import model_dicts, wanted_models
from models_app.states import State

pytestmark = pytest.mark.django_db
MIB = 1024 * 1024


@pytest.fixture
def process() -> Iterator[int]:
    """A process of its own, since what a process has started counts too, and tests start all kinds of things."""
    program = "import sys; held = bytearray(50_000_000); print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as running:
        running.stdout.readline()
        yield running.pid
        running.stdin.close()


@pytest.fixture
def replica(gguf_file, process) -> Replica:
    services.create_model({"name": "a", "file": gguf_file.name, "context_length": 512})
    prepared = prepare(wanted_models()[0].wanted, Circumstances())
    return Replica.objects.create(
        model=ModelConfig.objects.get(),
        number=1,
        node="n",
        state=State.READY,
        since=timezone.now(),
        pid=process,
        pid_started=process_identity.started_at(process),
        context_length=512,
        **prepared.memory_fields,
    )


def test_measured_stands_beside_planned(replica):
    memory_learning.measure("n", {})
    running = model_dicts()[0]["running"][0]["memory"]
    assert running["planned"] == replica.memory_planned
    assert running["measured"] == pytest.approx(psutil.Process(replica.pid).memory_info().rss, rel=0.05)


def test_others_are_left_alone(replica):
    for fields in ({"node": "other"}, {"state": State.LOADING}, {"pid_started": 5.0}, {"memory_key": ""}):
        Replica.objects.update(**fields)
        memory_learning.measure("n", {})
    assert not MemoryMeasurement.objects.exists()
    assert Replica.objects.get().memory_measured is None


def test_the_next_plan_counts_what_was_measured(replica, monkeypatch):
    known: dict[str, int] = {}
    before = prepare(wanted_models()[0].wanted, Circumstances()).plan.need
    for taken in (before.most + 30 * MIB, before.most + 10 * MIB):  # the most of it counts
        monkeypatch.setattr(memory_learning, "_resident", lambda _pid, _started, taken=taken: taken)
        memory_learning.measure("n", known)
    assert memory_learning.learned() == known
    after = prepare(wanted_models()[0].wanted, Circumstances(learned=known)).plan.need
    assert after.at_start == before.at_start + 30 * MIB
    assert model_dicts()[0]["memory"]["learned"] == 30 * MIB


def test_other_settings_learn_for_themselves(replica, monkeypatch):
    known: dict[str, int] = {}
    monkeypatch.setattr(memory_learning, "_resident", lambda _pid, _started: 10**12)
    memory_learning.measure("n", known)
    services.update_model("a", {"slots": 5})
    assert prepare(wanted_models()[0].wanted, Circumstances(learned=known)).plan.need.learned == 0
    services.update_model("a", {"slots": 2, "temperature": 0.1})
    assert prepare(wanted_models()[0].wanted, Circumstances(learned=known)).plan.need.learned > 0


def test_old_measurements_are_forgotten(replica, monkeypatch):
    monkeypatch.setattr(memory_learning, "ROWS_KEPT", 2)
    monkeypatch.setattr(memory_learning, "_resident", lambda _pid, _started: 10**9)
    for number in range(4):
        Replica.objects.update(memory_key=f"key {number}")
        memory_learning.measure("n", {})
    assert set(MemoryMeasurement.objects.values_list("key", flat=True)) == {"key 2", "key 3"}
