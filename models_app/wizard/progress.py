"""The fourth step: how far the download and the start are, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.urls import reverse

from llmplatform.lib.console.badges import badge
from models_app import admin_next_step
from models_app.admin_views import state_badge
from models_app.downloads import console, problems
from models_app.downloads.models import Download
from models_app.models import ModelConfig
from models_app.selectors import model_state
from models_app.states import State


@dataclass(frozen=True)
class Shown:
    name: str
    download: console.DownloadRow | None = None
    download_badge: str = ""
    problem: str = ""  # why the download did not become a model
    again: str = ""  # where the settings can be given once more
    state: str = ""
    why: str = ""
    is_ready: bool = False
    page: str = ""
    log: str = ""


def of(sent: Mapping[str, str]) -> Shown | None:
    """None when there is nothing (any more)."""
    if "download" not in sent:
        model = _model(pk=console.number(sent.get("model", "")))
        return _of_model(model) if model else None
    download = Download.objects.filter(pk=console.number(sent["download"])).first()
    if download is None:
        return None
    model = _model(name=download.model_name, file=download.file) if download.state == Download.State.DONE else None
    return _of_model(model) if model else _of_download(download)


def _model(**named: object) -> ModelConfig | None:
    return admin_next_step.with_what_is_known(ModelConfig.objects.filter(**named)).first()


def _of_model(model: ModelConfig) -> Shown:
    state = model_state(model, model.running.all())
    page = reverse("admin:models_app_modelconfig_change", args=[model.pk])
    why = admin_next_step.shown(model, admin_next_step.step_of(model))
    return Shown(
        model.name, state=state_badge(state), why=why, is_ready=state == State.READY, page=page, log=f"{page}#log"
    )


def _of_download(download: Download) -> Shown:
    row = console.row_of(download, set())
    failed = download.state in Download.FINAL and not download.is_open
    return Shown(
        download.model_name or download.what,
        download=row,
        download_badge=badge(row.state, row.kind),
        problem=problems.text(download.reason) if failed else "",
        again=f"{reverse('admin:models_app_modelconfig_wizard_settings')}?download={download.pk}"
        if download.state == Download.State.DONE
        else "",
    )
