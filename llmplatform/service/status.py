"""``manage.py status``: what runs in this folder, and whether all is well."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

import psutil
from django.conf import settings
from django.db import DatabaseError
from django.utils.translation import gettext as _

from llmplatform.service import local_client, run_folder
from models_app import config_file
from models_app.launchers.local import label
from models_app.models import ModelConfig, Replica
from models_app.reasons import text as reason_text
from models_app.selectors import SERVING
from models_app.states import State

CHILDREN = ("web", "supervisor")


@dataclass(frozen=True)
class Row:
    name: str
    state: str
    text: str = ""
    well: bool = True


def rows(running: run_folder.Running) -> list[Row]:
    return [_serve(running), *_children(running), _web_answers(running), *_models(), *_config_file()]


def _serve(running: run_folder.Running) -> Row:
    since = datetime.fromtimestamp(psutil.Process(running.pid).create_time()).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    text = _("process %(pid)d, since %(since)s, version %(version)s") % {
        "pid": running.pid,
        "since": since,
        "version": running.version,
    }
    return Row("serve", _("running"), text)


def _children(running: run_folder.Running) -> list[Row]:
    return [_child(name, running.children.get(name)) for name in CHILDREN]


def _child(name: str, child: run_folder.ProcessRecord | None) -> Row:
    if child is not None and child.alive():
        return Row(name, _("running"), _("process %(pid)d") % {"pid": child.pid})
    return Row(name, _("not running"), _("serve starts it again"), well=False)


def _web_answers(running: run_folder.Running) -> Row:
    status, body = local_client.get_json("/readyz")
    if status == 200:
        return Row(_("address"), _("answers"), running.address)
    if status == 0:
        return Row(_("address"), _("no answer"), running.address, well=False)
    missing = ", ".join(name for name, good in body.items() if good is False)
    return Row(_("address"), _("not ready"), f"{running.address} ({missing})", well=False)


def _models() -> list[Row]:
    try:
        replicas = defaultdict(list)
        for replica in Replica.objects.order_by("number"):
            replicas[replica.model_id].append(replica)
        return [_model(model, replicas[model.pk]) for model in ModelConfig.objects.all()]
    except DatabaseError as error:
        return [Row(_("database"), _("no answer"), str(error), well=False)]


def _config_file() -> list[Row]:
    """Entries that never became a model are seen nowhere else."""
    path = settings.MODEL_CONFIG_PATH
    return [
        Row(path.name, _("line %(line)d") % {"line": line}, reason, well=False)
        for line, reason in config_file.read(path).problems
    ]


def _model(model: ModelConfig, replicas: list[Replica]) -> Row:
    if not model.is_served:
        return Row(model.name, str(State.STOPPED.label))
    if model.is_on_demand and not replicas:
        return Row(model.name, _("on demand"), _("is loaded when somebody asks for it"))
    ready = sum(replica.state == State.READY for replica in replicas)
    failed = [replica for replica in replicas if replica.state == State.FAILED]
    state = State.READY if ready else State(replicas[0].state) if replicas else State.PENDING
    text = _("%(ready)d of %(wanted)d ready") % {"ready": ready, "wanted": model.replicas}
    reasons = [reason_text(replica.reason) for replica in replicas if replica.reason and replica.state != State.READY]
    engines = sorted({label(replica.engine) for replica in replicas if replica.state in SERVING} - {""})
    return Row(model.name, str(state.label), "; ".join([text, *engines, *reasons]), well=not failed)
