"""The machines of the service, as they reported themselves; operators take them out of service and back."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from cluster import services
from cluster.models import Node
from cluster.selectors import is_alive
from llmplatform.lib.console import formats
from llmplatform.lib.console.actions import back, confirmed_action, origin
from llmplatform.lib.console.admin import ReadOnlyAdmin
from llmplatform.lib.console.badges import badge


def _figure(node: Node, *path: str) -> Any:
    """One figure of those the machine reported; None when it did not report it."""
    part: Any = node.system
    for name in path:
        part = part.get(name) if isinstance(part, dict) else None
    return part


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    list_display = ("name", "state", "role", "address", "cpu", "memory", "disk", "seen")
    list_filter = ("role", "drained")
    search_fields = ("name", "host")
    ordering = ("role", "name")
    sortable_by = ()
    actions_row = ("drain", "resume")
    actions_detail = ("drain", "resume")
    fields = ("name", "state", "role", "address", "cpu", "memory", "disk", "load", "seen", "joined_at")

    @display(description=gettext_lazy("state"))
    def state(self, node: Node) -> SafeString:
        if not is_alive(node):
            return badge(_("not heard from"), "bad")
        return badge(_("drained"), "warn") if node.drained else badge(_("in service"), "good")

    @display(description=gettext_lazy("address"))
    def address(self, node: Node) -> str:
        return f"{node.host}:{node.port}"

    @display(description=gettext_lazy("processor"))
    def cpu(self, node: Node) -> str:
        percent = _figure(node, "cpu", "percent")
        return formats.NOTHING if percent is None else f"{formats.number(percent)} %"

    def _used(self, node: Node, *group: str) -> str:
        total, percent = _figure(node, *group, "total"), _figure(node, *group, "percent")
        if total is None or percent is None:
            return formats.NOTHING
        return _("%(percent)s %% of %(total)s") % {"percent": formats.number(percent), "total": formats.size(total)}

    @display(description=gettext_lazy("memory in use"))
    def memory(self, node: Node) -> str:
        return self._used(node, "memory")

    @display(description=gettext_lazy("disk in use"))
    def disk(self, node: Node) -> str:
        return self._used(node, "disk", "home")

    @display(description=gettext_lazy("load"))
    def load(self, node: Node) -> str:
        load = _figure(node, "load")
        return " ".join(formats.number(value, 2) for value in load) if isinstance(load, list) else formats.NOTHING

    @display(description=gettext_lazy("last heard from"), ordering="last_seen")
    def seen(self, node: Node) -> str | SafeString:
        return formats.ago(node.last_seen)

    @confirmed_action(
        title=gettext_lazy("Drain"),
        text=gettext_lazy("The machine gets no new requests; those under way are finished. Resume takes it back."),
        submit=gettext_lazy("Drain"),
        icon="pause_circle",
        variant=ActionVariant.WARNING,
    )
    def drain(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        node = get_object_or_404(Node, pk=object_id)
        services.drain(node.name)
        messages.success(request, _("%(name)s gets no new requests from now on.") % {"name": node.name})
        return back(request, origin(request, reverse("admin:cluster_node_changelist")))

    @confirmed_action(
        title=gettext_lazy("Resume"),
        text=gettext_lazy("The machine gets requests again."),
        submit=gettext_lazy("Resume"),
        icon="play_circle",
    )
    def resume(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        node = get_object_or_404(Node, pk=object_id)
        services.resume(node.name)
        messages.success(request, _("%(name)s gets requests again.") % {"name": node.name})
        return back(request, origin(request, reverse("admin:cluster_node_changelist")))
