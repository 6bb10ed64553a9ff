"""“Why is it not running?” in the console: the sentence, its button, and what the button does."""

from __future__ import annotations

import json

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.fields.json import KT
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from llmplatform.lib.console.actions import back, origin
from llmplatform.lib.errors import ApiError
from models_app import services
from models_app.downloads import services as downloads
from models_app.downloads.models import Download
from models_app.downloads.selectors import OPEN
from models_app.downloads.services import Wish
from models_app.models import ModelConfig
from models_app.next_step import LABELS, LINKS, Do, NextStep, Seen, Situation, next_step

LIST = "admin:models_app_modelconfig_changelist"


def with_what_is_known(models: QuerySet[ModelConfig]) -> QuerySet[ModelConfig]:
    """Models as ``step_of`` needs them, in two queries."""
    brought = Download.objects.annotate(first=KT("files__0__name")).filter(first=OuterRef("file"))
    return (
        models.select_related("loading")
        .prefetch_related("running")
        .annotate(
            can_download=Exists(brought.exclude(origin=Download.From.UPLOAD)), downloading=Exists(brought.filter(OPEN))
        )
    )


def step_of(model: ModelConfig) -> NextStep:
    """Of a model that came from ``with_what_is_known``."""
    return next_step(
        Situation(
            active=model.active,
            wanted=model.is_served,
            replicas=[Seen(replica.state, replica.reason) for replica in model.running.all()],
            has_last_version=bool(model.last_version),
            can_download=bool(getattr(model, "can_download", False)),
            downloading=bool(getattr(model, "downloading", False)),
            on_demand=model.is_on_demand,
            held_up_by=loading.held_up_by if (loading := getattr(model, "loading", None)) else None,
        )
    )


# -- shown -----------------------------------------------------------------------------------------------------------------
def shown(model: ModelConfig, step: NextStep) -> SafeString:
    if not step.sentence:
        return SafeString("")
    return format_html('<span class="c-why">{}</span>{}', step.sentence, _button(model, step))


def _button(model: ModelConfig, step: NextStep) -> SafeString:
    """One that sends belongs to the form “next-step” of its page, so that it may stand where no form can."""
    if step.do is None:
        return SafeString("")
    label = LABELS[step.do]
    name = f"{label}: {model.name}"
    if step.do in LINKS:
        return format_html(
            '<a class="c-button" href="{}" aria-label="{}">{}</a>', _address(model, step.do), name, label
        )
    return format_html(
        '<button class="c-button c-go" form="next-step" name="step" value="{}" aria-label="{}">{}</button>',
        _value(model, step),
        name,
        label,
    )


def _address(model: ModelConfig, do: Do) -> str:
    page = reverse("admin:models_app_modelconfig_change", args=[model.pk])
    return {
        Do.SHOW_LOG: f"{page}#log",
        Do.CHOOSE_FILE: f"{page}#id_file",
        Do.SHOW_DOWNLOADS: reverse("admin:models_app_modelconfig_add"),
        Do.SHOW_MODELS: reverse(LIST),
    }[do]


def _value(model: ModelConfig, step: NextStep) -> str:
    """What the person has seen: it is done only when it is still the thing to do."""
    return f"{model.pk}:{step.do}:{json.dumps(dict(step.settings), sort_keys=True)}"


# -- done ------------------------------------------------------------------------------------------------------------------
@require_POST
def take(request: HttpRequest) -> HttpResponse:
    sent = request.POST.get("step", "")
    pk = sent.partition(":")[0]
    model = with_what_is_known(ModelConfig.objects.filter(pk=pk)).first() if pk.isdecimal() and len(pk) < 10 else None
    step = step_of(model) if model is not None else NextStep()
    if model is None:
        messages.error(request, _("This model was removed meanwhile."))
    elif step.do is None or step.do in LINKS or sent != _value(model, step):
        messages.warning(request, _("%(name)s: something has changed meanwhile; look again.") % {"name": model.name})
    else:
        _take(request, model, step)
    return back(request, origin(request, reverse(LIST)))


def _take(request: HttpRequest, model: ModelConfig, step: NextStep) -> None:
    try:
        messages.success(request, _done(model, step) % {"name": model.name})
    except ApiError as error:
        messages.error(request, error.message)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))


def _done(model: ModelConfig, step: NextStep) -> str:
    if step.do is Do.USE_SETTINGS:
        services.update_model(model.name, dict(step.settings))
        return _("%(name)s: the settings were changed; it is started with them.")
    if step.do is Do.GO_BACK:
        services.go_back(model.name)
        return _("%(name)s: goes back to its settings before the last change.")
    if step.do is Do.DOWNLOAD_AGAIN:
        downloads.pull(_same(model))
        return _("%(name)s: its file is downloaded again, then it starts.")
    services.start(model.name)
    return _("%(name)s: will be started.")


def _same(model: ModelConfig) -> Wish:
    """What brought its file last. Raises DownloadNotFound."""
    brought = Download.objects.filter(files__0__name=model.file).exclude(origin=Download.From.UPLOAD).first()
    if brought is None:
        raise downloads.DownloadNotFound
    if brought.origin == Download.From.URL:
        return Wish(brought.url)
    return Wish(f"{brought.repository}:{brought.wanted_file or brought.file}", brought.origin or brought.hub)
