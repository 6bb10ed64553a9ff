"""The console's page of model_config.json: whether it says what the database says, what was done last, what has to be decided."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Field
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from llmplatform.lib.console import formats, pages
from llmplatform.lib.errors import ApiError
from models_app import config_conflicts, config_file, config_report, config_sync
from models_app.config_conflicts import Conflict, Keep
from models_app.config_report import SyncReport
from models_app.models import ModelConfig

PAGE = "admin:models_app_modelconfig_config"
SHOWN_CHARACTERS = 2000  # of a value


@dataclass(frozen=True)
class Row:
    model: str
    label: str
    key: str
    file: str
    ours: str
    value: str  # what a button sends


def page(model_admin: Any, request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        _act(request)
        return HttpResponseRedirect(reverse(PAGE))
    differences = config_conflicts.differences()
    last = config_report.last()
    context = {
        "path": settings.MODEL_CONFIG_PATH,
        "differences": differences,
        "conflicts": [_row(conflict) for conflict in differences.conflicts],
        "waiting_in_file": ", ".join(differences.waiting_in_file),
        "waiting_here": ", ".join(differences.waiting_here),
        "last_at": formats.ago(last["at"]) if last else "",
        "last_lines": _lines(last) if last else [],
    }
    return pages.page(model_admin, request, "console/model_config.html", "model_config.json", **context)


def _row(conflict: Conflict) -> Row:
    label = cast("Field[Any, Any]", ModelConfig._meta.get_field(config_file.KEYS[conflict.key].field)).verbose_name
    seen = json.dumps([conflict.model, conflict.key, conflict.file, conflict.ours])
    return Row(conflict.model, str(label), conflict.key, _text(conflict.file), _text(conflict.ours), seen)


def _text(value: Any) -> str:
    """As the file has it."""
    return json.dumps(value, ensure_ascii=False)[:SHOWN_CHARACTERS]


def _lines(report: dict[str, Any]) -> list[str]:
    """What was done, as sentences."""
    told = [
        (_("added: %(names)s"), "added"),
        (_("changed: %(names)s"), "changed"),
        (_("no longer in the file, so stopped: %(names)s"), "removed"),
        (_("written into the file: %(names)s"), "written_back"),
    ]
    lines = [text % {"names": ", ".join(report[key])} for text, key in told if report.get(key)]
    return lines or [_("Nothing has changed.")]


# -- buttons ---------------------------------------------------------------------------------------------------------------
def _act(request: HttpRequest) -> None:
    try:
        if "sync" in request.POST:
            _tell(request, config_sync.sync_config_file())
        elif "import" in request.POST:
            _import(request)
        elif (keep := request.POST.get("keep", "")[:4]) in {"file", "ours"}:
            config_conflicts.decide(_seen(request.POST["keep"][5:]), cast(Keep, keep))
            messages.success(request, _("It was decided: both sides have the same now."))
    except ApiError as error:
        messages.error(request, error.message)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))


def _seen(value: str) -> Conflict:
    """What stood beside the button. Raises NoConflict for anything else."""
    try:
        model, key, file, ours = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        raise config_conflicts.NoConflict from None
    return Conflict(model, key, file, ours)


def _import(request: HttpRequest) -> None:
    file = request.FILES.get("file")
    if file is None:
        messages.error(request, _("Choose a file first."))
        return
    report = config_conflicts.take_in(file.read(config_file.MAX_BYTES + 1))
    if report.problems:
        messages.error(request, _("Nothing was imported: there is a mistake in the file."))
    _tell(request, report)


def _tell(request: HttpRequest, report: SyncReport) -> None:
    for line, reason in report.problems[:20]:
        messages.error(request, _("Line %(line)d: %(reason)s") % {"line": line, "reason": reason})
    if report.conflicts:
        messages.warning(
            request, _("Changed on both sides: %(names)s. Decide below.") % {"names": ", ".join(report.conflicts)}
        )
    if not report.problems:
        for line in _lines(vars(report)):
            messages.success(request, line)


def export(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(
        config_conflicts.exported(),
        content_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="model_config.json"'},
    )
