"""Rows of ``TuningRun``: what people ask for, and what the process that measures writes."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from llmplatform.lib import audit, process_identity
from llmplatform.lib.errors import ApiError
from models_app import process
from models_app.models import ModelConfig, TuningRun
from models_app.services import ModelNotFound, tell_supervisor
from models_app.tuning.candidates import Setting
from models_app.tuning.search import Row

Stage = TuningRun.Stage
OPEN = (Stage.WANTED, Stage.RUNNING)
SHORTEST, LONGEST = 10, 3600  # seconds
MOST_CLIENTS = 64
KEPT = 20  # of each model
STOPPED = {"code": "tuning_stopped", "params": {}}
KILLED = {"code": "tuning_killed", "params": {}}


class TuningUnderWay(ApiError):
    def __init__(self, name: str) -> None:
        super().__init__("tuning_under_way", _("“%(name)s” is being tuned already.") % {"name": name}, 409)


class NotTunable(ApiError):
    def __init__(self) -> None:
        super().__init__("invalid_request", _("Only models that write text can be tuned."), 400)


# -- asked for by people -----------------------------------------------------------------------------------------------
def want(name: str, aim: str, clients: int, seconds: int, apply: bool, pid: int | None = None) -> TuningRun:
    """The supervisor carries it out, or the process ``pid`` does. Raises ModelNotFound, NotTunable, TuningUnderWay."""
    with transaction.atomic():
        model = ModelConfig.objects.select_for_update().filter(name=name).first()
        if model is None:
            raise ModelNotFound(name)
        if model.embeddings or model.rerank:
            raise NotTunable
        if TuningRun.objects.filter(model_name=name, stage__in=OPEN).exists():
            raise TuningUnderWay(name)
        started = process_identity.started_at(pid) if pid else None
        run = TuningRun.objects.create(
            model_name=name, aim=aim, clients=clients, seconds=seconds, apply=apply, pid=pid, pid_started=started
        )
        old = TuningRun.objects.filter(model_name=name).exclude(stage__in=OPEN).order_by("-id")
        TuningRun.objects.filter(pk__in=list(old.values_list("pk", flat=True)[KEPT:])).delete()
        audit.on(model, "tune", after={"aim": aim, "clients": clients, "seconds": seconds, "apply": apply}, event=True)
        tell_supervisor()
    return run


def ask_to_stop(name: str) -> bool:
    """Whether there was something to stop. Raises ModelNotFound."""
    with transaction.atomic():
        model = ModelConfig.objects.filter(name=name).first()
        if model is None:
            raise ModelNotFound(name)
        waiting = TuningRun.objects.filter(model_name=name, stage=Stage.WANTED, pid=None)
        stopped = waiting.update(stage=Stage.STOPPED, reason=STOPPED, finished_at=timezone.now())
        stopped = stopped or TuningRun.objects.filter(model_name=name, stage__in=OPEN).update(stop_wanted=True)
        if stopped:
            audit.on(model, "tune_stop", event=True)
            tell_supervisor()
    return bool(stopped)


def latest(name: str) -> TuningRun | None:
    return TuningRun.objects.filter(model_name=name).order_by("-id").first()


# -- by the process that measures --------------------------------------------------------------------------------------
def begin(run: TuningRun, **facts: Any) -> bool:
    """Claims it for this process. False when somebody else has, or it is over."""
    pid = os.getpid()
    mine = {"pid": pid, "pid_started": process_identity.started_at(pid), "stage": Stage.RUNNING}
    return bool(TuningRun.objects.filter(pk=run.pk, stage=Stage.WANTED, stop_wanted=False).update(**mine, **facts))


def end_unbegun(run: TuningRun) -> None:
    """Somebody did not want it any more before it began."""
    ours = TuningRun.objects.filter(pk=run.pk, stage=Stage.WANTED, stop_wanted=True)
    ours.update(stage=Stage.STOPPED, reason=STOPPED, finished_at=timezone.now())


def note(run: TuningRun, progress: float, rows: list[Row], busy: float) -> bool:
    """Whether to go on."""
    fields = {"progress": min(progress, 0.99), "rows": [row_dict(row) for row in rows], "busy": busy}
    TuningRun.objects.filter(pk=run.pk, stage=Stage.RUNNING).update(**fields)
    return TuningRun.objects.filter(pk=run.pk, stage=Stage.RUNNING, stop_wanted=False).exists()


def end(run: TuningRun, stage: str, **fields: Any) -> None:
    TuningRun.objects.filter(pk=run.pk, stage__in=OPEN).update(stage=stage, finished_at=timezone.now(), **fields)


def run_dict(run: TuningRun, summary: list[str]) -> dict[str, Any]:
    """As the API and ``tunemodel --json`` show it. ``summary``: sentences in the reader's language."""
    return {
        "id": run.pk,
        "modelName": run.model_name,
        "state": run.stage,
        "aim": run.aim,
        "clients": run.clients,
        "seconds": run.seconds,
        "apply": run.apply,
        "progress": round(run.progress, 3),
        "machine": run.machine,
        "engine": run.engine,
        "before": run.before,
        "chosen": run.chosen,
        "gain": run.gain,
        "busy": round(run.busy, 3),
        "applied": run.applied,
        "rows": run.rows,
        "summary": summary,
        "created": run.created_at.isoformat(),
        "finished": run.finished_at.isoformat() if run.finished_at else None,
    }


def row_dict(row: Row) -> dict[str, Any]:
    return {
        "settings": asdict(row.setting),
        "tokensPerSecond": round(row.speed, 2),
        "slowest": round(row.slowest, 2),
        "memory": row.memory,
        "runs": len(row.figures),
        "problem": row.problem,
    }


def setting_of(model: ModelConfig) -> Setting:
    return Setting(**{name: getattr(model, name) for name in asdict(Setting())})


# -- what a killed one leaves ------------------------------------------------------------------------------------------
def mark(run_id: int) -> int:
    """Stands in the engines' environment where a replica's id stands else."""
    return -1 - run_id  # -1 is --build-llama's


def clean_up() -> None:
    """Of runs whose process is gone: the row says so, and no engine is left. Blocks for milliseconds, or for as long as engines
    take to end."""
    for run in TuningRun.objects.filter(stage__in=OPEN, pid__isnull=False, pid_started__isnull=False):
        if not process_identity.is_same(run.pid or 0, run.pid_started or 0.0):
            end_engines(run.pk)
            end(run, Stage.STOPPED if run.stop_wanted else Stage.FAILED, reason=STOPPED if run.stop_wanted else KILLED)


def open_runs() -> list[TuningRun]:
    """Wanted or running, the oldest first. One query."""
    return list(TuningRun.objects.filter(stage__in=OPEN).order_by("id"))


def child_ended(run_id: int) -> None:
    """The process the supervisor started has ended; when its row does not say how, it was killed."""
    run = TuningRun.objects.filter(pk=run_id, stage__in=OPEN).first()
    if run is not None:
        end(run, Stage.STOPPED if run.stop_wanted else Stage.FAILED, reason=STOPPED if run.stop_wanted else KILLED)


def end_engines(run_id: int) -> None:
    for found in process.find_engines():
        if found.replica_id == mark(run_id):
            found.process.end()
