"""What is asked for, what a result says, and what the console and the API show of it."""

from __future__ import annotations

import os

import pytest
from django.utils import translation

from models_app.models import ModelConfig, TuningRun
from models_app.services import ModelNotFound
from models_app.tuning import runs, words
from models_app.tuning.candidates import Setting
from models_app.tuning.search import Figure, Row

pytestmark = pytest.mark.django_db
GIB = 1024**3


@pytest.fixture
def model(home) -> ModelConfig:
    return ModelConfig.objects.create(name="a", file="a.gguf")


def done(**fields) -> TuningRun:
    base, best = Row(Setting(), [Figure(40, 9, GIB)]), Row(Setting(threads=4, slots=2), [Figure(52, 12.5, GIB)])
    values = {"stage": "done", "gain": 1.3, "clients": 4, "chosen": {"threads": 4, "slots": 2}}
    rows = [runs.row_dict(base), runs.row_dict(best)]
    return TuningRun.objects.create(**{"model_name": "a", "rows": rows, **values, **fields})


def test_one_at_a_time_for_each_model(model):
    run = runs.want("a", "latency", 1, 60, False)
    with pytest.raises(runs.TuningUnderWay):
        runs.want("a", "memory", 1, 60, False)
    assert runs.ask_to_stop("a")
    run.refresh_from_db()
    assert run.stage == "stopped"
    assert not runs.ask_to_stop("a")
    runs.want("a", "memory", 1, 60, False)


def test_only_models_that_write_text(home):
    ModelConfig.objects.create(name="e", file="e.gguf", embeddings=True)
    with pytest.raises(runs.NotTunable):
        runs.want("e", "latency", 1, 60, False)
    with pytest.raises(ModelNotFound):
        runs.want("nobody", "latency", 1, 60, False)


def test_old_results_are_forgotten(model):
    for _ in range(runs.KEPT + 5):
        done()
    newest = done(gain=2.0)
    runs.want("a", "latency", 1, 60, False)
    assert TuningRun.objects.filter(stage="done").count() == runs.KEPT
    assert TuningRun.objects.filter(pk=newest.pk).exists()


def test_only_one_process_carries_it_out(model):
    run = runs.want("a", "latency", 1, 60, False)
    assert runs.begin(run)
    assert not runs.begin(run)
    assert runs.note(run, 0.5, [], 0)
    runs.ask_to_stop("a")
    assert not runs.note(run, 0.6, [], 0)


def test_a_run_whose_process_is_gone_says_so(model):
    run = runs.want("a", "latency", 1, 60, False)
    runs.begin(run)
    runs.clean_up()
    run.refresh_from_db()
    assert run.stage == "running"
    TuningRun.objects.update(pid_started=1.0)
    runs.clean_up()
    run.refresh_from_db()
    assert (run.stage, run.reason["code"]) == ("failed", "tuning_killed")


def test_one_that_is_stopped_before_it_begins_is_over(model):
    """By a process that was to measure it, whether that goes on or dies."""
    run = runs.want("a", "throughput", 4, 60, False, pid=os.getpid())
    assert runs.ask_to_stop("a")
    assert not runs.begin(run)
    runs.end_unbegun(run)
    assert runs.latest("a").stage == TuningRun.Stage.STOPPED
    run = runs.want("a", "throughput", 4, 60, False, pid=os.getpid())
    TuningRun.objects.filter(pk=run.pk).update(pid_started=1.0)
    runs.clean_up()
    assert runs.latest("a").stage == TuningRun.Stage.FAILED
    runs.want("a", "throughput", 4, 60, False)


def test_the_result_in_words():
    assert words.sentences(done()) == [
        "Best: threads 4, slots 2. That is 1.30 times as fast as llama-server's defaults.",
        "Measured: 4 people at once get 12.5 tokens/s or more each.",
        "Serves 4 people at 8 tokens/s or more.",
    ]
    slow = [{**row, "slowest": 6.0} for row in done().rows]
    assert words.sentences(done(rows=slow))[-1] == "For 4 at once that is less than people read: 8 tokens/s."
    assert words.sentences(done(gain=1.0, chosen={"threads": None, "slots": 4}))[0].startswith(
        "llama-server's defaults"
    )
    assert "Other work took up to 60 %" in words.sentences(done(busy=0.6))[-1]
    with translation.override("zh-hans"):
        assert "4" in words.sentences(done())[-1]
        assert "Serves" not in words.sentences(done())[-1]


def test_the_table_marks_what_was_chosen():
    assert [(line.settings, line.chosen) for line in words.lines(done())] == [
        ("llama-server's defaults", False),
        ("threads 4, slots 2", True),
    ]
