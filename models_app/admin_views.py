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
from models_app import process, reasons
from models_app.models import ModelConfig, Replica
from models_app.selectors import model_dict, model_state
from models_app.states import COMING, State

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
    if model.wanted_replicas:
        return _("%(ready)d of %(wanted)d") % {"ready": ready, "wanted": model.wanted_replicas}
    return _("%(ready)d, being stopped") % {"ready": ready} if ready else formats.NOTHING


def why_not(model: ModelConfig) -> str:
    """Why the model answers no requests, as one sentence; empty when it does, or when nothing is wrong."""
    replicas = list(model.running.all())
    if any(replica.state == State.READY for replica in replicas):
        return ""
    if not model.wanted_replicas:
        return _("It was stopped by hand.") if not model.active else _("Its policy is “off”.")
    for replica in replicas:
        if replica.reason:
            return reasons.text(replica.reason)
    if any(replica.state in COMING for replica in replicas):
        return _("It is on its way.")
    return _("The supervisor has not taken it up yet.")


@dataclass(frozen=True)
class ReplicaRow:
    name: str
    url: str
    state: SafeString
    node: str
    port: str
    pid: str
    since: str | SafeString
    memory: str
    reason: str


def _memory(replica: Replica) -> str:
    """What the process takes now. A process on another machine cannot be asked here."""
    if not replica.pid or replica.host not in {"127.0.0.1", "localhost"}:
        return formats.NOTHING
    try:
        return formats.size(psutil.Process(replica.pid).memory_info().rss)
    except psutil.Error:
        return formats.NOTHING


def _row(replica: Replica) -> ReplicaRow:
    return ReplicaRow(
        name=f"{replica.model.name}/{replica.number}",
        url=reverse("admin:models_app_replica_change", args=[replica.pk]),
        state=state_badge(replica.state),
        node=replica.node,
        port=str(replica.port or formats.NOTHING),
        pid=str(replica.pid or formats.NOTHING),
        since=formats.ago(replica.since),
        memory=_memory(replica),
        reason=reasons.text(replica.reason),
    )


def _log(replicas: list[Replica]) -> list[str]:
    """Of the replica somebody would ask about: the first that is not ready, else the first."""
    if not replicas:
        return []
    asked = next((replica for replica in replicas if replica.state != State.READY), replicas[0])
    return last_text_lines(process.log_path(asked.model.name, asked.number), LOG_LINES)


def _need(model: ModelConfig, replicas: list[Replica]) -> str:
    """Memory one replica takes at most, as planned from the file. Empty when the file cannot be read."""
    total = model_dict(model, replicas)["memory"].get("total")
    return formats.size(total) if total else ""


def model_panel(model: ModelConfig) -> dict[str, Any]:
    replicas = list(model.running.all())
    for replica in replicas:
        replica.model = model  # already here: no query per row
    return {
        "live_source": reverse("admin:models_app_modelconfig_live", args=[model.pk]),
        "panel_model": model,
        "panel_state": state_badge(model_state(model, replicas)),
        "panel_why": why_not(model),
        "panel_ready": ready_text(model),
        "panel_replicas": [_row(replica) for replica in replicas],
        "panel_log": _log(replicas),
        "panel_need": _need(model, replicas),
    }


def model_live(request: HttpRequest, model: ModelConfig) -> HttpResponse:
    return TemplateResponse(request, "console/model_panel.html", model_panel(model))
