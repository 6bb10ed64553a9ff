"""The overview of the console: what to do, figures, traffic, models, recent failures. Refreshed by static/console/live.js."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.models import UsageRecord, User
from cluster import selectors as cluster_selectors
from cluster.system import system_figures
from llmplatform.console import traffic, verdict
from llmplatform.console.runtime import gateway_now, supervisor_alive
from llmplatform.lib import chart
from llmplatform.lib.console import formats
from llmplatform.lib.console.admin import is_administrator
from models_app.admin_next_step import step_of, with_what_is_known
from models_app.admin_views import ready_text, state_badge
from models_app.models import ModelConfig
from models_app.selectors import model_state
from models_app.states import COMING, State

RECENT = 6


@dataclass(frozen=True)
class Card:
    title: str
    value: str
    note: str = ""
    percent: int | None = None  # draws a bar
    link: str = ""
    quiet: bool = False  # the value says that there is nothing


def _facts(request: HttpRequest, models: list[ModelConfig], system: dict[str, Any]) -> verdict.Facts:
    return verdict.Facts(
        supervisor_alive=supervisor_alive(),
        models=[_model_fact(model) for model in models],
        silent_machines=[node.name for node in cluster_selectors.nodes() if not cluster_selectors.is_alive(node)],
        disk_total=system["disk"]["home"]["total"],
        disk_free=system["disk"]["home"]["free"],
        memory_total=system["memory"]["total"],
        memory_available=system["memory"]["available"],
        unchanged_passwords=list(
            User.objects.filter(is_superuser=True, must_change_password=True).values_list("username", flat=True)
        ),
        people_waiting=User.objects.filter(waiting=True).count() if is_administrator(request) else 0,
    )


def _model_fact(model: ModelConfig) -> verdict.ModelFact:
    states = [replica.state for replica in model.running.all()]
    return verdict.ModelFact(
        pk=model.pk,
        name=model.name,
        wanted=model.wanted_replicas,
        ready=states.count(State.READY),
        coming=sum(state in COMING for state in states),
        failed=states.count(State.FAILED),
        reason=step_of(model).sentence,
    )


def _service_cards(models: list[ModelConfig], hours: list[traffic.Hour], now: datetime) -> list[Card]:
    facts = [_model_fact(model) for model in models]
    wanted, ready = sum(fact.wanted > 0 for fact in facts), sum(fact.ready > 0 for fact in facts)
    requests, tokens = traffic.today(hours, now)
    gateway = gateway_now()
    silence = _("no traffic")
    usage = reverse("admin:accounts_usagerecord_changelist")
    return [
        Card(
            _("Models ready"),
            _("%(ready)d of %(wanted)d") % {"ready": ready, "wanted": wanted} if wanted else _("none"),
            link=reverse("admin:models_app_modelconfig_changelist"),
            quiet=not wanted,
        ),
        Card(_("Requests today"), formats.number(requests) if requests else silence, link=usage, quiet=not requests),
        Card(_("Tokens today"), formats.number(tokens) if tokens else silence, link=usage, quiet=not tokens),
        Card(
            _("Tokens per second now"),
            formats.number(gateway.tokens_per_second, 1) if gateway.tokens_per_second else silence,
            quiet=not gateway.tokens_per_second,
        ),
        Card(
            _("Waiting requests"),
            formats.number(gateway.waiting) if gateway.waiting else _("none"),
            _("%(count)d under way") % {"count": gateway.under_way} if gateway.under_way else "",
            quiet=not gateway.waiting,
        ),
    ]


def _share(title: str, percent: float, note: str) -> Card:
    return Card(title, f"{formats.number(percent)} %", note, percent=round(percent))


def _machine_cards(system: dict[str, Any]) -> list[Card]:
    free = _("%(free)s of %(total)s free")
    memory, disk, cpu = system["memory"], system["disk"]["home"], system["cpu"]
    cores = cpu["cores"]["logical"]
    return [
        _share(
            _("Memory in use"),
            memory["percent"],
            free % {"free": formats.size(memory["available"]), "total": formats.size(memory["total"])},
        ),
        _share(_("Processor in use"), cpu["percent"], ngettext("%(n)d core", "%(n)d cores", cores) % {"n": cores}),
        _share(
            _("Disk in use"),
            disk["percent"],
            free % {"free": formats.size(disk["free"]), "total": formats.size(disk["total"])},
        ),
    ]


def _chart(hours: list[traffic.Hour], values: list[int], tip: str, summary: str) -> chart.Chart | None:
    starts = [timezone.localtime(hour.start) for hour in hours]
    labels = [start.strftime("%H:%M") if start.hour % 6 == 0 else "" for start in starts]
    shown = [formats.number(value) for value in values]
    tips = [f"{start:%H:%M} – {tip % {'count': text}}" for start, text in zip(starts, shown, strict=True)]
    total = summary % {"count": formats.number(sum(values))}
    return chart.bars(values, labels, tips, top=formats.number(max(values, default=0)), summary=total)


def _charts(hours: list[traffic.Hour]) -> list[dict[str, Any]]:
    requests, tokens = [hour.requests for hour in hours], [hour.tokens for hour in hours]
    return [
        {
            "key": "requests",
            "title": _("Requests by hour"),
            "chart": _chart(hours, requests, _("%(count)s requests"), _("%(count)s requests in the last 24 hours")),
        },
        {
            "key": "tokens",
            "title": _("Tokens by hour"),
            "chart": _chart(hours, tokens, _("%(count)s tokens"), _("%(count)s tokens in the last 24 hours")),
        },
    ]


def _model_rows(models: list[ModelConfig]) -> list[dict[str, Any]]:
    rows = []
    for model in models:
        replicas = list(model.running.all())
        rows.append(
            {
                "name": model.name,
                "url": reverse("admin:models_app_modelconfig_change", args=[model.pk]),
                "state": state_badge(model_state(model, replicas)),
                "ready": ready_text(model),
                "why": step_of(model).sentence,
            }
        )
    return rows


def _failures(now: datetime) -> list[dict[str, Any]]:
    records = UsageRecord.objects.filter(
        created_at__gte=now - timedelta(hours=traffic.HOURS), outcome=UsageRecord.Outcome.FAILED
    )[:RECENT]
    return [
        {
            "when": formats.ago(record.created_at),
            "model": record.model_name,
            "who": record.username or formats.NOTHING,
            "status": record.status,
            "request": record.request_id,
            "url": reverse("admin:accounts_usagerecord_change", args=[record.pk]),
        }
        for record in records
    ]


def overview(request: HttpRequest) -> dict[str, Any]:
    now = timezone.now()
    models = list(with_what_is_known(ModelConfig.objects.all()))
    system = system_figures()
    hours = traffic.last_hours(now)
    return {
        "findings": verdict.findings(_facts(request, models, system)),
        "cards": [*_service_cards(models, hours, now), *_machine_cards(system)],
        "charts": _charts(hours),
        "model_rows": _model_rows(models),
        "failures": _failures(now),
        "live_source": reverse("console_live"),
    }


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's DASHBOARD_CALLBACK."""
    return {**context, **overview(request), "title": _("Overview")}


def live(request: HttpRequest) -> HttpResponse:
    return TemplateResponse(request, "console/overview.html", overview(request))
