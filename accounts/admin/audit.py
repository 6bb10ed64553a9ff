"""The audit log in the console: who changed what, from where, what it was before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponseRedirect, QueryDict
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts import audit_reading, audit_words
from accounts.admin.filters import TimeFilter
from accounts.api.audit import csv_answer
from accounts.models import ApiKey, AuditEntry, User
from accounts.models.audit import Area
from llmplatform.lib import audit
from llmplatform.lib.console import formats
from llmplatform.lib.console.admin import LongTableAdmin
from llmplatform.lib.console.badges import Kind, badge
from llmplatform.lib.console.filters import FormFilter

CHANGES_SHOWN = 4
SUGGESTED = 200
FAILED = frozenset({"login_failed", "password_refused", "proof_refused"})
TAKEN_AWAY = frozenset({"delete", "remove", "revoke", "block", "refuse"})


def _choices(words: Any) -> list[tuple[str, Any]]:
    return [("", gettext_lazy("all")), *words]


class _KindForm(forms.Form):
    area = forms.ChoiceField(
        label=gettext_lazy("Area"), required=False, choices=_choices(Area.choices), widget=UnfoldAdminSelectWidget
    )
    action = forms.ChoiceField(
        label=gettext_lazy("Action"),
        required=False,
        choices=_choices(audit_words.ACTIONS.items()),
        widget=UnfoldAdminSelectWidget,
    )
    type = forms.ChoiceField(
        label=gettext_lazy("Kind of object"),
        required=False,
        choices=_choices(audit_words.TYPES.items()),
        widget=UnfoldAdminSelectWidget,
    )


class KindFilter(FormFilter):
    title = gettext_lazy("kind")
    form_class = _KindForm

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        columns = {"area": "area", "action": "action", "type": "target_type"}
        return queryset.filter(**{columns[name]: value for name, value in self.values.items() if value})


PROGRAMS = {
    "command:": gettext_lazy("command line"),
    "service:": gettext_lazy("the service"),
    "machine:": gettext_lazy("a machine"),
}


class _PersonForm(forms.Form):
    who = forms.CharField(
        label=gettext_lazy("Who"),
        required=False,
        max_length=150,
        widget=UnfoldAdminTextInputWidget(attrs={"list": "audit-people", "autocomplete": "off"}),
    )


class PersonFilter(FormFilter):
    """Offers who changes things most: operators, administrators, and what is no person. Anybody else's name can be typed."""

    title = gettext_lazy("person")
    template = "console/filter_person.html"
    form_class = _PersonForm

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        staff = User.objects.filter(Q(is_staff=True) | Q(is_superuser=True)).order_by("username")
        names = [*PROGRAMS.values(), *staff.values_list("username", flat=True)[:SUGGESTED]]
        yield {"form": self.form, "names": names}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        who = self.values.get("who", "")
        if not who:
            return queryset
        for prefix, text in PROGRAMS.items():
            if who == str(text):
                return audit_reading.by_program(queryset, prefix)
        if ":" in who:
            return audit_reading.by_program(queryset, who)
        found = User.objects.filter(username__iexact=who).first()
        return queryset.filter(actor=found) if found else queryset.none()


class _TimeForm(forms.Form):
    since = forms.ChoiceField(
        label=gettext_lazy("Time"),
        required=False,
        choices=_choices(TimeFilter.hours.items()),
        widget=UnfoldAdminSelectWidget,
    )
    from_day = forms.DateField(
        label=gettext_lazy("From day"), required=False, widget=UnfoldAdminTextInputWidget(attrs={"type": "date"})
    )
    to_day = forms.DateField(
        label=gettext_lazy("To day"), required=False, widget=UnfoldAdminTextInputWidget(attrs={"type": "date"})
    )


class WhenFilter(FormFilter):
    title = gettext_lazy("time")
    form_class = _TimeForm

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        hours, first, last = (self.values.get(name) for name in ("since", "from_day", "to_day"))
        if hours:
            queryset = queryset.filter(created_at__gte=timezone.now() - timedelta(hours=int(hours)))
        if first:
            queryset = queryset.filter(created_at__gte=timezone.make_aware(datetime.combine(first, time.min)))
        if last:
            queryset = queryset.filter(created_at__lte=timezone.make_aware(datetime.combine(last, time.max)))
        return queryset


class _ObjectForm(forms.Form):
    object = forms.CharField(required=False, max_length=120, widget=forms.HiddenInput)
    key = forms.IntegerField(required=False, min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput)


class ObjectFilter(FormFilter):
    """``?object=user:5``, as the “History” of a page asks for it, and ``?key=5``: done with that key. Nothing to choose."""

    title = gettext_lazy("object")
    form_class = _ObjectForm
    template = "console/filter_hidden.html"

    def has_output(self) -> bool:
        return bool(self.values.get("object") or self.values.get("key"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        kind, _colon, number = self.values.get("object", "").partition(":")
        if kind:
            queryset = queryset.filter(target_type=kind, target_id=number)
        key = self.values.get("key")
        return queryset.filter(key_id=key) if key else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(LongTableAdmin):
    administrators_only = True
    list_display = ("when", "who", "address", "what", "target", "changed")
    list_select_related = ("key",)
    list_filter = (ObjectFilter, WhenFilter, PersonFilter, KindFilter)
    list_before_template = "console/audit_bar.html"
    fields = ("full_time", "who", "address", "what", "target", "all_changes", "code")
    search_fields = ("target_name",)  # see get_search_results
    search_help_text = gettext_lazy("Name of an object or a person, or an address")
    ordering = ("-created_at", "-id")
    sortable_by = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        return (audit_reading.named(queryset, search_term) if search_term else queryset), False

    def get_urls(self) -> list[URLPattern]:
        wrap: Callable[..., Any] = self.admin_site.admin_view
        return [path("csv/", wrap(self.csv), name="accounts_auditentry_csv"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, {**(extra_context or {}), **_only_shown(request.GET)})

    def csv(self, request: HttpRequest) -> HttpResponseBase:
        """What the list would show with the same filters, all of it."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            shown: ChangeList = self.get_changelist_instance(request)
        except IncorrectLookupParameters:
            return HttpResponseRedirect(reverse("admin:accounts_auditentry_changelist"))
        return csv_answer(shown.queryset, marked=True)

    # -- columns -------------------------------------------------------------------------------------------------

    @display(description=gettext_lazy("time"))
    def when(self, entry: AuditEntry) -> SafeString:
        return formats.moment(entry.created_at)

    @display(description=gettext_lazy("time"))
    def full_time(self, entry: AuditEntry) -> SafeString:
        return formats.moment(entry.created_at, with_date=True)

    @display(description=gettext_lazy("who"))
    def who(self, entry: AuditEntry) -> str | SafeString:
        name = _link(User, str(entry.actor_id or ""), audit_words.actor_text(entry.actor_name))
        if entry.key is None:
            return name
        key = format_html('<a class="c-link" href="?key={}">{}</a>', entry.key_id, entry.key)
        return format_html(
            '{} <span class="c-why">{}</span>', name, format_html(_("with key %(key)s") % {"key": "{}"}, key)
        )

    @display(description=gettext_lazy("what"))
    def what(self, entry: AuditEntry) -> SafeString:
        verb = entry.action.partition(".")[2]
        kind: Kind = "bad" if verb in FAILED else "warn" if verb in TAKEN_AWAY else "off"
        return badge(audit_words.action_text(entry.action), kind)

    @display(description=gettext_lazy("name in the API"))
    def code(self, entry: AuditEntry) -> str:
        return entry.action

    @display(description=gettext_lazy("object"))
    def target(self, entry: AuditEntry) -> SafeString:
        name = entry.target_name or entry.target_id
        linked = _link(audit.model_of(entry.target_type), entry.target_id, name) if name else formats.NOTHING
        return format_html('{} <span class="c-why">{}</span>', linked, audit_words.type_text(entry.target_type))

    @display(description=gettext_lazy("changes"))
    def changed(self, entry: AuditEntry) -> str | SafeString:
        return _list_of(entry, CHANGES_SHOWN)

    @display(description=gettext_lazy("changes"))
    def all_changes(self, entry: AuditEntry) -> str | SafeString:
        return _list_of(entry, len(entry.changes))


def _only_shown(query: QueryDict) -> dict[str, str]:
    """Of what the list is, where ``ObjectFilter`` narrows it, for the line above it."""
    if (number := query.get("key", "")).isdecimal():
        return {"only_key": str(ApiKey.objects.filter(pk=number[:18]).first() or number)}
    kind, _colon, number = query.get("object", "").partition(":")
    if not kind:
        return {}
    newest = AuditEntry.objects.filter(target_type=kind, target_id=number).order_by("-created_at").first()
    return {"only_object": f"{audit_words.type_text(kind)} {newest.target_name if newest else number}"}


def _list_of(entry: AuditEntry, most: int) -> str | SafeString:
    changes = list(audit_words.changes(entry.target_type, entry.changes))
    if not changes:
        return formats.NOTHING
    shown = format_html_join(
        "",
        '<li><span class="c-field">{}</span> {}<ins>{}</ins></li>',
        (
            (change.field, format_html("<del>{}</del> → ", change.before) if change.before else "", change.after)
            for change in changes[:most]
        ),
    )
    more = len(changes) - most
    rest = format_html("<li>{}</li>", ngettext("%d more", "%d more", more) % more) if more > 0 else ""
    return format_html('<ul class="c-changes">{}{}</ul>', shown, rest)


def _link(model: type[Any] | None, number: str, text: str) -> str | SafeString:
    """To the object's page in the console, where there is one; it may be gone."""
    if model is None or not number.isdecimal():
        return text
    try:
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[number])
    except NoReverseMatch:
        return text
    return format_html('<a class="c-link" href="{}">{}</a>', url, text)
