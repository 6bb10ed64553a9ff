"""The four pages: choose, what fits, settings, start."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from llmplatform.lib.console import formats, pages
from llmplatform.lib.errors import ApiError
from models_app import machine, model_folder, reasons, services
from models_app.downloads import catalogue, hubs
from models_app.downloads import console as downloads_shown
from models_app.downloads import services as downloads
from models_app.downloads.models import Download
from models_app.models import ModelConfig
from models_app.wizard import files, fits, forms, progress
from models_app.wizard.choice import Choice, NotChoosable, free_name, resolve
from models_app.wizard.steps import CHOOSE, FITS, SETTINGS, START, url, url_of
from models_app.wizard.steps import steps as steps_at


# -- 1: choose -------------------------------------------------------------------------------------------------------------
def choose(model_admin: Any, request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        downloads_shown.act(request)
        return HttpResponseRedirect(url(CHOOSE))
    words, hub = request.GET.get("q", "").strip()[:200], request.GET.get("hub", "")
    hub = hub if hub in hubs.HUBS else ""
    context = {
        "steps": steps_at(CHOOSE),
        "fits_url": url(FITS),
        "files": files.rows(),
        "downloads": downloads_shown.rows(),
        "offers": [downloads_shown.offer_row(offer) for offer in catalogue.offers()],
        "words": words,
        "hub": hub,
        "hubs": [(one, Download.From(one).label) for one in hubs.HUBS],
        "found": downloads_shown.look(words, hub) if words else None,
        "live_source": reverse("admin:models_app_modelconfig_wizard_live"),
    }
    return pages.page(model_admin, request, "console/wizard_choose.html", _("Add a model"), **context)


def choose_live(_model_admin: Any, request: HttpRequest) -> HttpResponse:
    context = {"downloads": downloads_shown.rows(), "fits_url": url(FITS)}
    return TemplateResponse(request, "console/downloads_live.html", context)


def _chosen(request: HttpRequest, *, asks_hub: bool = False) -> Choice | HttpResponse:
    """The choice in the address; else the way back to the first step, with what is wrong."""
    try:
        choice = resolve(request.GET.dict(), asks_hub=asks_hub)
    except NotChoosable as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(url(CHOOSE))
    if choice is None:
        messages.info(request, _("Choose what the model is made of first."))
        return HttpResponseRedirect(url(CHOOSE))
    return choice


# -- 2: what fits ----------------------------------------------------------------------------------------------------------
def what_fits(model_admin: Any, request: HttpRequest) -> HttpResponse:
    choice = _chosen(request, asks_hub=True)
    if isinstance(choice, HttpResponse):
        return choice
    usable = model_folder.usable_memory()
    counted = fits.counted(choice.facts, usable) if choice.facts and choice.exact else []
    before = [fit for fit in counted if fits.value_of(fit) == request.GET.get("fit")]  # when somebody comes back
    chosen = before[0] if before else fits.preselected(counted)
    context = {
        "steps": steps_at(FITS, choice),
        "choice": choice,
        "about": files.summary(choice.facts) if choice.read and choice.facts else formats.size(choice.size),
        "table": fits.table(counted, chosen),
        "nothing_fits": bool(counted) and not any(fit.fits for fit in counted),
        "least": formats.size(min((fit.needed for fit in counted), default=None)),
        "too_large": choice.size is not None and choice.size > usable,
        "usable": formats.size(usable),
        "free": formats.size(machine.available_memory()),
        "settings_url": url(SETTINGS),
        "choose_url": url(CHOOSE),
    }
    return pages.page(model_admin, request, "console/wizard_fits.html", _("Add a model"), **context)


# -- 3: settings -----------------------------------------------------------------------------------------------------------
def settings(model_admin: Any, request: HttpRequest) -> HttpResponse:
    choice = _chosen(request)
    if isinstance(choice, HttpResponse):
        return choice
    made_before = _made_before(request, choice)
    if made_before is not None:
        return made_before
    form = forms.form_class(model_admin, request)(request.POST or None, initial=_initial(request, choice))
    why: dict[str, Any] | None = None
    if request.method == "POST" and form.is_valid():
        fields = form.settings()
        why = _does_not_fit(request, choice, fields)
        if why is None:
            try:
                return HttpResponseRedirect(_add(choice, fields, form.changed_data))
            except ValidationError as error:
                pages.add_errors(form, error)
            except ApiError as error:
                form.add_error(None, error.message)
    elif request.method == "POST":
        messages.error(request, _("Nothing was added yet: see what is marked below."))
    return pages.page(
        model_admin,
        request,
        "console/wizard_settings.html",
        _("Add a model"),
        **_shown(request, model_admin, choice, form, why),
    )


def _shown(
    request: HttpRequest, model_admin: Any, choice: Choice, form: Any, why: dict[str, Any] | None
) -> dict[str, Any]:
    groups, fit = forms.more(model_admin, form), request.GET.get("fit", "")
    nearest = (why or {}).get("params", {}).get("nearest") or {}
    return {
        "steps": steps_at(SETTINGS, choice, fit),
        "choice": choice,
        "form": form,
        "first": forms.first(form),
        "groups": groups,
        "more_open": any(field.errors for _title, fields in groups for field in fields),
        "why": reasons.text(why),
        "nearest": ", ".join(
            f"{reasons.ADVICE[name]} {value}" for name, value in nearest.items() if name in reasons.ADVICE
        ),
        "back_url": url_of(FITS, choice, fit),
    }


def _initial(request: HttpRequest, choice: Choice) -> dict[str, Any]:
    chosen = fits.settings_of(request.GET.get("fit", ""))
    if choice.facts is not None and choice.facts.kind != "chat":
        chosen["embeddings"], chosen["rerank"] = True, choice.facts.kind == "rerank"
    return {**chosen, **choice.settings, "name": free_name(choice)}


def _made_before(request: HttpRequest, choice: Choice) -> HttpResponse | None:
    """Sent twice (two clicks, a reload, a second window): the model is there already, made of this very file."""
    if request.method != "POST" or not choice.is_there:
        return None
    model = ModelConfig.objects.filter(name=request.POST.get("name", ""), file=choice.file).first()
    if model is None:
        return None
    messages.info(request, _("The model “%(name)s” was added already.") % {"name": model.name})
    return HttpResponseRedirect(f"{url(START)}?model={model.pk}")


def _does_not_fit(request: HttpRequest, choice: Choice, fields: dict[str, Any]) -> dict[str, Any] | None:
    """None also where the person wants it all the same; the nearest settings are put into ``fields`` where they are wanted."""
    if choice.facts is None or not choice.exact or "anyway" in request.POST:
        return None
    why = fits.problem(choice.facts, fields)
    if why is not None and "nearest" in request.POST:
        fields.update(why["params"]["nearest"])
        why = fits.problem(choice.facts, fields)
    return why


def _add(choice: Choice, fields: dict[str, Any], touched: Iterable[str]) -> str:
    """Where to go on. ``touched``: the fields that are not as the form began with. Raises ValidationError, ApiError."""
    if choice.is_there:
        model = services.create_model({**fields, "file": choice.file})
        return f"{url(START)}?model={model.pk}"
    name, known = fields["name"], forms.changed({key: value for key, value in fields.items() if key != "name"}, touched)
    if choice.download is not None:
        made = downloads.promise_model(choice.download, name, known)
        return f"{url(START)}?model={made.pk}" if made else f"{url(START)}?download={choice.download}"
    wish = downloads.Wish(*choice.wished, model_name=name, model_settings=known)
    return f"{url(START)}?download={downloads.pull(wish)[0].pk}"


# -- 4: start --------------------------------------------------------------------------------------------------------------
def start(model_admin: Any, request: HttpRequest) -> HttpResponse:
    shown = progress.of(request.GET)
    if shown is None:
        messages.error(request, _("This model, or its download, was removed meanwhile."))
        return HttpResponseRedirect(reverse("admin:models_app_modelconfig_changelist"))
    context = {
        "steps": steps_at(START),
        "shown": shown,
        "live_source": f"{reverse('admin:models_app_modelconfig_wizard_start_live')}?{request.GET.urlencode()}",
    }
    return pages.page(model_admin, request, "console/wizard_start.html", _("Add a model"), **context)


def start_live(_model_admin: Any, request: HttpRequest) -> HttpResponse:
    return TemplateResponse(request, "console/wizard_start_live.html", {"shown": progress.of(request.GET)})
