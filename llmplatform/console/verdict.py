"""The line at the top of the overview: all well, or what to do. Decides only; what is known is handed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from llmplatform.lib.console import formats

Level = Literal["bad", "warn", "busy", "good"]
LEVELS: tuple[Level, ...] = ("bad", "warn", "busy", "good")
DISK_FREE_BYTES = 2 * 1024**3
DISK_FREE_PERCENT = 5
MEMORY_FREE_PERCENT = 5


@dataclass(frozen=True)
class Finding:
    level: Level
    text: str
    link: str = ""
    link_text: str = ""


@dataclass(frozen=True)
class ModelFact:
    pk: int
    name: str
    wanted: int
    ready: int
    coming: int
    failed: int
    reason: str


@dataclass(frozen=True)
class Facts:
    supervisor_alive: bool
    models: Sequence[ModelFact]
    silent_machines: Sequence[str] = ()
    disk_total: int = 0
    disk_free: int = 0
    memory_total: int = 0
    memory_available: int = 0
    unchanged_passwords: Sequence[str] = field(default=())
    people_waiting: int = 0  # for approval; told to administrators only


def _supervisor(facts: Facts) -> list[Finding]:
    if facts.supervisor_alive:
        return []
    text = _("The supervisor is not running, so models are neither started nor watched. Restart the service.")
    return [Finding("bad", text)]


def _model(model: ModelFact) -> list[Finding]:
    link = reverse("admin:models_app_modelconfig_change", args=[model.pk])
    if model.failed:
        reason = model.reason or _("no reason was recorded")
        text = _("%(model)s does not start: %(reason)s") % {"model": model.name, "reason": reason}
        return [Finding("warn" if model.ready else "bad", text, link, _("Look at it"))]
    if model.wanted and not model.ready:
        text = _("%(model)s is starting.") % {"model": model.name}
        return [Finding("busy", text, link, _("Look at it"))]
    return []


def _models(facts: Facts) -> list[Finding]:
    if not facts.models:
        text = _("There is no model yet. Put a GGUF file into the models folder and add it here.")
        return [Finding("warn", text, reverse("admin:models_app_modelconfig_add"), _("Add a model"))]
    if not any(model.wanted for model in facts.models):
        link = reverse("admin:models_app_modelconfig_changelist")
        return [Finding("warn", _("Every model is stopped: nobody gets an answer."), link, _("Start one"))]
    return [finding for model in facts.models for finding in _model(model)]


def _machine(facts: Facts) -> list[Finding]:
    found = []
    if facts.disk_total and (
        facts.disk_free < DISK_FREE_BYTES or facts.disk_free * 100 < facts.disk_total * DISK_FREE_PERCENT
    ):
        text = _("The disk is nearly full: %(free)s left. Remove models or logs you no longer need.")
        found.append(Finding("bad", text % {"free": formats.size(facts.disk_free)}))
    if facts.memory_total and facts.memory_available * 100 < facts.memory_total * MEMORY_FREE_PERCENT:
        text = _(
            "Memory is nearly used up: %(free)s left. Stop a model, or choose a smaller context or fewer replicas."
        )
        found.append(Finding("warn", text % {"free": formats.size(facts.memory_available)}))
    for name in facts.silent_machines:
        text = _("%(machine)s has not been heard from for a minute.") % {"machine": name}
        found.append(Finding("warn", text, reverse("admin:cluster_node_changelist"), _("Machines")))
    return found


def _passwords(facts: Facts) -> list[Finding]:
    return [
        Finding("warn", _("%(name)s, an administrator, still has the password of the first start.") % {"name": name})
        for name in facts.unchanged_passwords
    ]


def _waiting(facts: Facts) -> list[Finding]:
    if not facts.people_waiting:
        return []
    text = ngettext(
        "%(count)d person waits for approval.", "%(count)d people wait for approval.", facts.people_waiting
    ) % {"count": facts.people_waiting}
    link = f"{reverse('admin:accounts_user_changelist')}?status=waiting"
    return [Finding("warn", text, link, _("Look at them"))]


def findings(facts: Facts) -> list[Finding]:
    """What somebody should do, the gravest first; one finding “good” when there is nothing."""
    found = [*_supervisor(facts), *_models(facts), *_machine(facts), *_passwords(facts), *_waiting(facts)]
    return sorted(found, key=lambda one: LEVELS.index(one.level)) or [Finding("good", _("All is well."))]
