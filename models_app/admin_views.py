"""What the console shows about one model beside its form: state, replicas, the reason, memory, the end of its log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from cluster.log_reading import last_text_lines
from llmplatform.lib.console import formats
from llmplatform.lib.console.badges import Kind, badge
from models_app import admin_next_step, engine_logs, process, reasons
from models_app.launchers import local
from models_app.models import ModelConfig, Replica
from models_app.selectors import model_dict, model_state
from models_app.states import COMING, State
from models_app.tuning import words
from models_app.tuning.runs import latest

STATE_KINDS: dict[str, Kind] = {
    State.READY: "good",
    State.DRAINING: "warn",
    State.FAILED: "bad",
    State.STOPPED: "off",
    **dict.fromkeys(COMING, "busy"),
}
LOG_LINES = 30


def state_badge(state: str) -> SafeString:
    return badge(State(state).label, STATE_KINDS[state])


def ready_text(model: ModelConfig) -> str:
    """How many replicas answer, of how many that should."""
    ready = sum(replica.state == State.READY for replica in model.running.all())
    if model.wanted_replicas or (model.is_on_demand and model.running.all()):
        return _("%(ready)d of %(wanted)d") % {"ready": ready, "wanted": model.replicas}
    if model.is_on_demand:
        return _("when asked for")
    return _("%(ready)d, being stopped") % {"ready": ready} if ready else formats.NOTHING


@dataclass(frozen=True)
class ReplicaRow:
    name: str
    url: str
    state: SafeString
    node: str
    port: str
    pid: str
    engine: str
    since: str | SafeString
    memory: str
    reason: str


def _memory(replica: Replica) -> str:
    """What it takes and what was planned for it; a process of this machine is asked, else what was recorded is shown."""
    taken = _taken_now(replica) or replica.memory_measured
    if taken is None or replica.memory_planned is None:
        return formats.size(taken)
    return _("%(taken)s of %(planned)s planned") % {
        "taken": formats.size(taken),
        "planned": formats.size(replica.memory_planned),
    }


def _taken_now(replica: Replica) -> int | None:
    if not replica.pid or replica.host not in {"127.0.0.1", "localhost"}:
        return None
    try:
        return int(psutil.Process(replica.pid).memory_info().rss)
    except psutil.Error:
        return None


def _row(replica: Replica) -> ReplicaRow:
    return ReplicaRow(
        name=f"{replica.model.name}/{replica.number}",
        url=reverse("admin:models_app_replica_change", args=[replica.pk]),
        state=state_badge(replica.state),
        node=replica.node,
        port=str(replica.port or formats.NOTHING),
        pid=str(replica.pid or formats.NOTHING),
        engine=local.label(replica.engine) or formats.NOTHING,
        since=formats.ago(replica.since),
        memory=_memory(replica),
        reason=reasons.text(replica.reason),
    )


def _log(model: ModelConfig, replicas: list[Replica]) -> dict[str, Any]:
    """First the log of the replica somebody would ask about: the first that is not ready, else the first. ``log.js`` follows
    it, and what else there is to choose; without it there are the last lines as they were."""
    numbers = sorted({replica.number for replica in replicas} | engine_logs.files_of(model.name).keys())
    waiting = [replica.number for replica in replicas if replica.state != State.READY]
    asked = (waiting or numbers or [1])[0]
    return {
        "log_source": reverse("model-logs", args=[model.name]),
        "log_numbers": numbers,
        "log_number": asked,
        "log_lines": last_text_lines(process.log_path(model.name, asked), LOG_LINES),
    }


def _need(model: ModelConfig, replicas: list[Replica]) -> str:
    """Memory one replica takes at most, as planned from the file. Empty when the file cannot be read."""
    total = model_dict(model, replicas)["memory"].get("total")
    return formats.size(total) if total else ""


def _tuning(model: ModelConfig) -> dict[str, Any]:
    """The newest tuning: how far it is, or what it found."""
    run = latest(model.name)
    if run is None:
        return {}
    return {
        "tuning": run,
        "tuning_percent": f"{run.progress:.0%}",
        "tuning_when": formats.ago(run.finished_at or run.created_at),
        "tuning_lines": words.lines(run),
        "tuning_sentences": words.sentences(run),
    }


def model_panel(model: ModelConfig) -> dict[str, Any]:
    replicas = list(model.running.all())
    for replica in replicas:
        replica.model = model  # already here: no query per row
    return {
        "live_source": reverse("admin:models_app_modelconfig_live", args=[model.pk]),
        "panel_model": model,
        "panel_state": state_badge(model_state(model, replicas)),
        "panel_why": admin_next_step.shown(model, admin_next_step.step_of(model)),
        "panel_ready": ready_text(model),
        "panel_replicas": [_row(replica) for replica in replicas],
        **_log(model, replicas),
        "panel_need": _need(model, replicas),
        **_tuning(model),
    }


def model_live(request: HttpRequest, model: ModelConfig) -> HttpResponse:
    return TemplateResponse(request, "console/model_panel.html", model_panel(model))
