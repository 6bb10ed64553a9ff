"""Console pages for models and their replicas. What is wanted is written through ``services`` only, so that
``model_config.json`` stays in step; what runs is shown as the supervisor recorded it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from llmplatform.lib.console import formats
from llmplatform.lib.console.actions import back, confirmed_action, origin
from llmplatform.lib.console.admin import ConsoleAdmin, ReadOnlyAdmin
from llmplatform.lib.console.badges import live
from llmplatform.lib.console.pages import own_path
from llmplatform.lib.errors import ApiError
from models_app import admin_config, admin_next_step, reasons, services
from models_app.admin_forms import ModelConfigForm, TuneForm
from models_app.admin_views import model_live, model_panel, ready_text, state_badge
from models_app.launchers import local
from models_app.models import ModelConfig, Replica
from models_app.selectors import model_state
from models_app.tuning import runs
from models_app.wizard import views as wizard


@admin.register(ModelConfig)
class ModelConfigAdmin(ConsoleAdmin):
    form = ModelConfigForm
    list_display = ("title", "state", "ready", "file", "context", "why")
    list_filter = ("active", "policy")
    search_fields = ("name", "file", "description")
    ordering = ("name",)
    list_before_template = "console/model_list_top.html"
    change_form_outer_before_template = "console/model_panel.html"
    actions = ("start_chosen", "stop_chosen", "restart_chosen")
    actions_list = ("config",)
    actions_row = ("start", "stop", "restart")
    actions_detail = ("start", "stop", "restart", "go_back", "tune", "stop_tuning")
    fieldsets = (
        (None, {"fields": ("name", "file", "description", "active")}),
        (gettext_lazy("Capacity"), {"fields": ("replicas", "slots", "context_length", "policy")}),
        (gettext_lazy("On demand"), {"classes": ("collapse",), "fields": ("ttl", "pinned", "run_group")}),
        (
            gettext_lazy("Answers"),
            {"fields": ("max_tokens", "temperature", "top_p", "repeat_penalty", "system_prompt", "chat_template")},
        ),
        (
            gettext_lazy("Names and versions"),
            {"classes": ("collapse",), "fields": ("aliases", "is_default", "traffic")},
        ),
        (
            gettext_lazy("Speed and memory"),
            {
                "classes": ("collapse",),
                "fields": (
                    "threads",
                    "batch_threads",
                    "cores",
                    "numa",
                    "ubatch",
                    "cache_type",
                    "prompt_cache",
                    "flash_attention",
                    "speculative",
                    "draft_file",
                    "gpu_layers",
                ),
            },
        ),
        (
            gettext_lazy("More than chat"),
            {"classes": ("collapse",), "fields": ("embeddings", "rerank", "mmproj_file", "lora")},
        ),
    )

    # -- lists ---------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelConfig]:
        return admin_next_step.with_what_is_known(super().get_queryset(request))

    @display(description=gettext_lazy("model"), ordering="name")
    def title(self, model: ModelConfig) -> str:
        return _("%(name)s (default)") % {"name": model.name} if model.is_default else model.name

    @display(description=gettext_lazy("state"))
    def state(self, model: ModelConfig) -> SafeString:
        return live(f"state-{model.pk}", state_badge(model_state(model, model.running.all())))

    @display(description=gettext_lazy("replicas ready"))
    def ready(self, model: ModelConfig) -> SafeString:
        return live(f"ready-{model.pk}", ready_text(model))

    @display(description=gettext_lazy("context"), ordering="context_length")
    def context(self, model: ModelConfig) -> str:
        if model.context_length:
            return formats.number(model.context_length)
        return _("automatic")

    @display(description=gettext_lazy("why not running"))
    def why(self, model: ModelConfig) -> SafeString:
        return live(f"why-{model.pk}", admin_next_step.shown(model, admin_next_step.step_of(model)))

    # -- form ----------------------------------------------------------------------------------------------------

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return ("name",) if obj else ()

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """The first step of the wizard; its third makes the model."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return wizard.choose(self, request)

    def save_model(self, request: HttpRequest, obj: ModelConfig, form: ModelConfigForm, change: bool) -> None:
        fields = form.settings()
        fields.pop("name", None)
        services.update_model(obj.name, fields)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, set[str], Any]:
        """Its replicas and names go with a model, though nobody may delete one of them by itself."""
        told = _("%(model)s is stopped, and its settings are removed. The file %(file)s stays.")
        rows = [told % {"model": model.name, "file": model.file} for model in objs]
        return rows, {ModelConfig._meta.verbose_name_plural: len(rows)}, set(), []

    def delete_model(self, request: HttpRequest, obj: ModelConfig) -> None:
        services.delete_model(obj.name)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ModelConfig]) -> None:
        for name in queryset.values_list("name", flat=True):
            services.delete_model(name)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        panel: dict[str, Any] = {}
        if object_id and object_id.isdecimal():
            model = self.get_queryset(request).filter(pk=object_id).first()
            panel = model_panel(model) if model else {}
        try:
            return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **panel})
        except ValidationError as error:  # somebody else was quicker, between the form's checks and the writing
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(request.path)

    @action(description="model_config.json", icon="sync_alt", url_path="config", permissions=["operate"])
    def config(self, request: HttpRequest) -> HttpResponse:
        return admin_config.page(self, request)

    # -- live parts ----------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        wrap: Callable[..., Any] = self.admin_site.admin_view
        own = [
            own_path(self, "add/live/", partial(wizard.choose_live, self), "wizard_live"),
            own_path(self, "add/fits/", partial(wizard.what_fits, self), "wizard_fits"),
            own_path(self, "add/settings/", partial(wizard.settings, self), "wizard_settings"),
            own_path(self, "add/start/", partial(wizard.start, self), "wizard_start"),
            own_path(self, "add/start/live/", partial(wizard.start_live, self), "wizard_start_live"),
            own_path(self, "config/export/", admin_config.export, "config_export"),
            own_path(self, "next/", admin_next_step.take, "next"),
            path("live/", wrap(self.list_live), name="models_app_modelconfig_live_list"),
            path("<int:pk>/live/", wrap(self.panel_live), name="models_app_modelconfig_live"),
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        source = reverse("admin:models_app_modelconfig_live_list")
        return super().changelist_view(request, {**(extra_context or {}), "live_source": source})

    def list_live(self, request: HttpRequest) -> HttpResponse:
        if not self.has_view_permission(request):
            raise Http404
        rows = [(self.state(model), self.ready(model), self.why(model)) for model in self.get_queryset(request)]
        return TemplateResponse(request, "console/live_rows.html", {"rows": rows})

    def panel_live(self, request: HttpRequest, pk: int) -> HttpResponse:
        if not self.has_view_permission(request):
            raise Http404
        return model_live(request, get_object_or_404(self.get_queryset(request), pk=pk))

    # -- actions -------------------------------------------------------------------------------------------------

    def _do(self, request: HttpRequest, names: list[str], write: Callable[[str], Any], done: str) -> None:
        """Writes for each name, and says on the next page what was done and what could not be."""
        written = []
        for name in names:
            try:
                write(name)
            except ApiError as error:  # deleted meanwhile
                messages.error(request, error.message)
            else:
                written.append(name)
        if written:
            messages.success(request, done % {"names": ", ".join(written)})

    def _start(self, request: HttpRequest, names: list[str]) -> None:
        self._do(request, names, lambda name: services.set_active(name, True), _("%(names)s: will be started."))

    def _stop(self, request: HttpRequest, names: list[str]) -> None:
        self._do(request, names, lambda name: services.set_active(name, False), _("%(names)s: will be stopped."))

    def _restart(self, request: HttpRequest, names: list[str]) -> None:
        self._do(request, names, services.request_restart, _("%(names)s: will be restarted."))

    def _go_back(self, request: HttpRequest, names: list[str]) -> None:
        self._do(request, names, services.go_back, _("%(names)s: goes back to its settings before the last change."))

    @admin.action(description=gettext_lazy("Start"), permissions=["operate"])
    def start_chosen(self, request: HttpRequest, chosen: QuerySet[ModelConfig]) -> None:
        self._start(request, list(chosen.values_list("name", flat=True)))

    @admin.action(description=gettext_lazy("Stop"), permissions=["operate"])
    def stop_chosen(self, request: HttpRequest, chosen: QuerySet[ModelConfig]) -> None:
        self._stop(request, list(chosen.values_list("name", flat=True)))

    @admin.action(description=gettext_lazy("Restart"), permissions=["operate"])
    def restart_chosen(self, request: HttpRequest, chosen: QuerySet[ModelConfig]) -> None:
        self._restart(request, list(chosen.values_list("name", flat=True)))

    def _one(self, request: HttpRequest, object_id: str, act: Callable[[HttpRequest, list[str]], None]) -> HttpResponse:
        act(request, [get_object_or_404(ModelConfig, pk=object_id).name])
        return back(request, origin(request, reverse("admin:models_app_modelconfig_changelist")))

    @confirmed_action(
        title=gettext_lazy("Start"),
        text=gettext_lazy("The model is loaded into memory and then answers requests."),
        submit=gettext_lazy("Start"),
        icon="play_circle",
    )
    def start(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, object_id, self._start)

    @confirmed_action(
        title=gettext_lazy("Stop"),
        text=gettext_lazy("Requests under way are finished first. The model stays stopped until it is started again."),
        submit=gettext_lazy("Stop"),
        icon="stop_circle",
        variant=ActionVariant.DANGER,
    )
    def stop(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, object_id, self._stop)

    @confirmed_action(
        title=gettext_lazy("Restart"),
        text=gettext_lazy(
            "Each replica finishes its requests, ends, and is started again. A failed one gets a new try."
        ),
        submit=gettext_lazy("Restart"),
        icon="restart_alt",
    )
    def restart(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, object_id, self._restart)

    @confirmed_action(
        title=gettext_lazy("Last version"),
        text=gettext_lazy(
            "The settings before the last change are used again. Replicas are replaced one after the other; "
            "once more brings the present settings back."
        ),
        submit=gettext_lazy("Go back"),
        icon="undo",
    )
    def go_back(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        return self._one(request, object_id, self._go_back)

    @confirmed_action(
        title=gettext_lazy("Tune"),
        text=gettext_lazy(
            "Measures which settings are best on this machine. Figures mean most while nothing else runs."
        ),
        submit=gettext_lazy("Measure"),
        icon="speed",
        form_class=TuneForm,
    )
    def tune(self, request: HttpRequest, form: TuneForm, object_id: str) -> HttpResponse:
        def want(request: HttpRequest, names: list[str]) -> None:
            self._do(request, names, lambda name: runs.want(name, **form.wish()), _("%(names)s: will be measured."))

        return self._one(request, object_id, want)

    @confirmed_action(
        title=gettext_lazy("Stop tuning"),
        text=gettext_lazy("What was measured so far stays to be seen; nothing is changed."),
        submit=gettext_lazy("Stop"),
        icon="stop_circle",
    )
    def stop_tuning(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        def stop(request: HttpRequest, names: list[str]) -> None:
            self._do(request, names, runs.ask_to_stop, _("%(names)s: its tuning is stopped."))

        return self._one(request, object_id, stop)


@admin.register(Replica)
class ReplicaAdmin(ReadOnlyAdmin):
    list_display = ("title", "state_badge", "node", "process", "port", "slots", "context_length", "since_badge", "why")
    list_filter = ("state", "node")
    list_select_related = ("model",)
    search_fields = ("model__name", "node")
    ordering = ("model__name", "number")
    fields = ("title", "state_badge", "why", "node", "host", "port", "process", "build", "slots", "context_length", "since_badge",
              "quick_failures")  # fmt: skip

    @display(description=gettext_lazy("replica"), ordering="model__name")
    def title(self, replica: Replica) -> str:
        return str(replica)

    @display(description=gettext_lazy("state"), ordering="state")
    def state_badge(self, replica: Replica) -> SafeString:
        return state_badge(replica.state)

    @display(description=gettext_lazy("since"), ordering="since")
    def since_badge(self, replica: Replica) -> str | SafeString:
        return formats.ago(replica.since)

    @display(description=gettext_lazy("process"))
    def process(self, replica: Replica) -> str:
        return str(replica.pid or formats.NOTHING)

    @display(description=gettext_lazy("engine"))
    def build(self, replica: Replica) -> str:
        return local.label(replica.engine) or formats.NOTHING

    @display(description=gettext_lazy("last error"))
    def why(self, replica: Replica) -> str:
        return reasons.text(replica.reason) or formats.NOTHING
