"""“Why is it not running?” as one sentence, and the one thing to do about it. Pure: what is known is handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from models_app import reasons
from models_app.states import COMING, State


class Do(StrEnum):
    """What a button does, or where it leads."""

    START = "start"
    TRY_AGAIN = "try_again"
    USE_SETTINGS = "use_settings"
    GO_BACK = "go_back"
    DOWNLOAD_AGAIN = "download_again"
    SHOW_DOWNLOADS = "show_downloads"
    SHOW_LOG = "show_log"
    CHOOSE_FILE = "choose_file"
    SHOW_MODELS = "show_models"


LABELS = {
    Do.START: gettext_lazy("Start"),
    Do.TRY_AGAIN: gettext_lazy("Try again"),
    Do.USE_SETTINGS: gettext_lazy("Use these settings"),
    Do.GO_BACK: gettext_lazy("Go back to the last version"),
    Do.DOWNLOAD_AGAIN: gettext_lazy("Download again"),
    Do.SHOW_DOWNLOADS: gettext_lazy("Show the download"),
    Do.SHOW_LOG: gettext_lazy("Show the log"),
    Do.CHOOSE_FILE: gettext_lazy("Choose another file"),
    Do.SHOW_MODELS: gettext_lazy("Show what runs"),
}
LINKS = frozenset({Do.SHOW_LOG, Do.SHOW_DOWNLOADS, Do.CHOOSE_FILE, Do.SHOW_MODELS})

_OTHER_FILE = (
    "path_unsafe gguf_not_one gguf_version gguf_cut_short gguf_damaged gguf_big_endian gguf_twice gguf_old_type"
    " gguf_tensor_place gguf_tensor_overlap gguf_part_name gguf_part_strange gguf_check_memory gguf_wrong_kind"
)
_LOG = "exited crashed start_timeout load_timeout no_token stuck hung"
# Not the model's fault: something on the machine has to change first, or has changed by now.
_AGAIN = (
    "file_unreadable gguf_check_time gguf_check_ended no_free_port engine_missing killed log_folder run_folder database"
    " internal_error"
)
BY_CODE: dict[str, Do] = {
    **dict.fromkeys(_OTHER_FILE.split(), Do.CHOOSE_FILE),
    **dict.fromkeys(_LOG.split(), Do.SHOW_LOG),
    **dict.fromkeys(_AGAIN.split(), Do.TRY_AGAIN),
    "file_missing": Do.DOWNLOAD_AGAIN,
    "gguf_part_missing": Do.DOWNLOAD_AGAIN,
    "gguf_not_first_part": Do.USE_SETTINGS,
    "not_enough_memory": Do.USE_SETTINGS,
    "made_room": Do.SHOW_MODELS,
    "cores_missing": Do.USE_SETTINGS,
    "over_bound": Do.SHOW_LOG,
}


@dataclass(frozen=True)
class Seen:
    """A replica."""

    state: str
    reason: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Situation:
    active: bool
    wanted: bool  # at least one replica should run
    replicas: Sequence[Seen] = ()
    has_last_version: bool = False
    can_download: bool = False  # it is known where its file came from
    downloading: bool = False
    on_demand: bool = False
    held_up_by: Sequence[str] | None = None  # on demand, and asked for: the models it waits for


@dataclass(frozen=True)
class NextStep:
    """``sentence`` is "" when nothing is wrong; ``do`` None when there is nothing to do but wait. ``settings``: by field."""

    sentence: str = ""
    do: Do | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def next_step(now: Situation) -> NextStep:
    told = next((seen.reason for seen in now.replicas if seen.reason), None)
    if any(seen.state == State.READY for seen in now.replicas):
        return _beside_ready(now)
    if not now.wanted:
        return NextStep(_("It was stopped by hand.") if not now.active else _("Its policy is “off”."), Do.START)
    if told:
        return _about(told, now)
    if any(seen.state in COMING for seen in now.replicas):
        return NextStep(_("It is on its way."))
    if now.on_demand:
        return _not_loaded(now.held_up_by)
    return NextStep(_("The supervisor has not taken it up yet."))


def _not_loaded(held_up_by: Sequence[str] | None) -> NextStep:
    if held_up_by is None:
        return NextStep(_("It is loaded when somebody asks for it."), Do.START)
    if not held_up_by:
        return NextStep(_("Somebody asks for it; it is loaded as soon as there is memory for it."), Do.SHOW_MODELS)
    told = _("Somebody asks for it; it is loaded as soon as %(models)s has made room.")
    return NextStep(told % {"models": ", ".join(held_up_by)}, Do.SHOW_MODELS)


def _beside_ready(now: Situation) -> NextStep:
    told = next((seen.reason for seen in now.replicas if seen.state == State.FAILED and seen.reason), None)
    if not told:
        return NextStep()
    if not now.has_last_version:
        about = _about(told, now)
        sentence = _("Not all of its replicas come up: %(reason)s") % {"reason": about.sentence}
        return NextStep(sentence, about.do, about.settings)
    sentence = _("What was changed last does not come up, and what ran before goes on: %(reason)s")
    return NextStep(sentence % {"reason": reasons.text(dict(told))}, Do.GO_BACK)


def _about(reason: Mapping[str, Any], now: Situation) -> NextStep:
    sentence, params = reasons.text(dict(reason)), reason.get("params") or {}
    do = BY_CODE.get(str(reason.get("code")), Do.TRY_AGAIN)
    if do is Do.USE_SETTINGS:
        settings = _settings(params)
        return NextStep(sentence, do if settings else Do.SHOW_MODELS, settings)
    if do is Do.DOWNLOAD_AGAIN:
        if now.downloading:
            return NextStep(_("%(reason)s It is being downloaded.") % {"reason": sentence}, Do.SHOW_DOWNLOADS)
        return NextStep(sentence, do if now.can_download else Do.CHOOSE_FILE)
    return NextStep(sentence, do)


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Those with which it would start: nearest ones that fit, the first part of a model in parts, any cores."""
    if params.get("cores"):
        return {"cores": None}
    if params.get("part"):
        return {"file": str(params["part"])}
    return {name: value for name, value in (params.get("nearest") or {}).items() if name in reasons.ADVICE}
