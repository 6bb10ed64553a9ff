"""Console pages for redeem codes: batches, and who used which code."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext
from unfold.decorators import display
from unfold.enums import ActionVariant

from accounts import credits
from accounts.admin.fields import CreditsField, LimitField, MomentField, text_input
from accounts.models import RedeemBatch, RedeemCode, User
from llmplatform.lib.console import formats
from llmplatform.lib.console.actions import NamedDialogForm, back, confirmed_action, origin
from llmplatform.lib.console.admin import LongTableAdmin, ReadOnlyAdmin
from llmplatform.lib.console.badges import badge
from llmplatform.lib.console.pages import OnceForm, add_errors, once, own_path, page

SERVICE_NAMES = {"amount": "credits"}
CODE = re.compile(r"[0-9A-Z]{5}(?:-[0-9A-Z]{5})+")


class NewCodesForm(OnceForm):
    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=100,
        widget=text_input(),
        help_text=gettext_lazy("For yourself, such as the event. It stands in the ledger of whoever uses a code."),
    )
    count = LimitField(label=gettext_lazy("Number of codes"), required=True, min_value=1, max_value=credits.MOST_CODES)
    credits = CreditsField(label=gettext_lazy("Credits for each code"))
    expires_at = MomentField(
        label=gettext_lazy("Can be used until"), required=False, help_text=gettext_lazy("Empty: for ever.")
    )
    credit_days = LimitField(
        label=gettext_lazy("Days the credit lasts once it is used"),
        min_value=1,
        max_value=36500,
        help_text=gettext_lazy("Empty: for ever."),
    )


@admin.register(RedeemBatch)
class RedeemBatchAdmin(ReadOnlyAdmin):
    administrators_only = True
    purpose = gettext_lazy("Whoever redeems a code gets its credits: for events, or to sell credit elsewhere.")
    list_display = ("name", "worth", "count", "used", "left", "expiry", "status", "made")
    search_fields = ("name",)
    search_help_text = gettext_lazy("Search by name")
    ordering = ("-id",)
    sortable_by = ()
    actions_row = ("revoke",)
    actions_detail = ("revoke",)
    change_form_outer_after_template = "console/batch_more.html"
    fields = ("name", "worth", "count", "used", "left", "expiry", "days", "status", "maker", "made")

    def has_add_permission(self, request: HttpRequest, *_obj: Any) -> bool:
        return self._may(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[RedeemBatch]:
        used = RedeemCode.objects.filter(batch=OuterRef("pk"), used_at__isnull=False).order_by()
        counted = used.values("batch").annotate(number=Count("pk")).values("number")
        found: QuerySet[RedeemBatch] = super().get_queryset(request)
        return found.annotate(used_count=Coalesce(Subquery(counted), 0))

    def get_urls(self) -> list[URLPattern]:
        return [
            own_path(self, "<int:pk>/codes.csv", self.download, "csv"),
            *super().get_urls(),
        ]

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        batch = self.get_object(request, object_id)
        found: list[Any] = super().get_actions_detail(request, object_id)
        return found if batch is not None and batch.revoked_at is None else []

    # -- what is shown -----------------------------------------------------------------------------------------------

    @display(description=gettext_lazy("credits each"))
    def worth(self, batch: RedeemBatch) -> str:
        return formats.credits(batch.amount)

    @display(description=gettext_lazy("already used"))
    def used(self, batch: RedeemBatch) -> str:
        return formats.number(batch.used_count)  # type: ignore[attr-defined]

    @display(description=gettext_lazy("left"))
    def left(self, batch: RedeemBatch) -> str:
        usable = batch.revoked_at is None and not _is_over(batch)
        return formats.number(batch.count - batch.used_count if usable else 0)  # type: ignore[attr-defined]

    @display(description=gettext_lazy("can be used until"))
    def expiry(self, batch: RedeemBatch) -> str | SafeString:
        return formats.moment(batch.expires_at, with_date=True) if batch.expires_at else _("for ever")

    @display(description=gettext_lazy("days the credit lasts"))
    def days(self, batch: RedeemBatch) -> str:
        return formats.number(batch.credit_days) if batch.credit_days else _("for ever")

    @display(description=gettext_lazy("state"))
    def status(self, batch: RedeemBatch) -> SafeString:
        if batch.revoked_at is not None:
            return badge(pgettext("state", "revoked"), "bad")
        return badge(_("expired"), "off") if _is_over(batch) else badge(_("in use"), "good")

    @display(description=gettext_lazy("made by"))
    def maker(self, batch: RedeemBatch) -> str:
        return batch.created_by.username if batch.created_by else formats.NOTHING

    @display(description=gettext_lazy("made"))
    def made(self, batch: RedeemBatch) -> SafeString:
        return formats.moment(batch.created_at, with_date=True)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        panel: dict[str, Any] = {}
        if object_id and object_id.isdecimal():
            codes = RedeemCode.objects.filter(batch_id=int(object_id), used_at__isnull=False)
            newest = codes.select_related("used_by").order_by("-used_at")[:20]
            url = f"{reverse('admin:accounts_redeemcode_changelist')}?batch={object_id}"
            panel = {"panel_codes": [_code_row(code) for code in newest], "panel_codes_url": url}
        return super().changeform_view(request, object_id, form_url, {**(extra_context or {}), **panel})

    # -- making a batch ----------------------------------------------------------------------------------------------

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewCodesForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            answer = self._make(request, form)
            if answer is not None:
                return answer
        title, submit = _("Make redeem codes"), _("Make the codes")
        return page(self, request, "console/form.html", title, form=form, form_submit_text=submit)

    def _make(self, request: HttpRequest, form: NewCodesForm) -> HttpResponse | None:
        filled = form.cleaned_data
        by = request.user if isinstance(request.user, User) else None

        def make() -> tuple[RedeemBatch, list[str]]:
            return credits.make_codes(
                filled["name"],
                filled["count"],
                filled["credits"],
                expires_at=filled["expires_at"],
                credit_days=filled["credit_days"],
                by=by,
            )

        try:
            made = once(request, form, make)
        except ValidationError as error:
            add_errors(form, error, SERVICE_NAMES)
            return None
        if made is None:
            return back(request, reverse("admin:accounts_redeembatch_changelist"))
        batch, codes = made
        done = reverse("admin:accounts_redeembatch_change", args=[batch.pk])
        download = reverse("admin:accounts_redeembatch_csv", args=[batch.pk])
        context = {"batch": batch, "codes": codes, "worth": formats.credits(batch.amount)}
        return page(
            self, request, "console/codes.html", _("New codes"), done_url=done, download_url=download, **context
        )

    def download(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The codes that the page just made shows, as a file: the page sends them, since they are kept nowhere."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        batch = get_object_or_404(RedeemBatch, pk=pk)
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(["code", "credits", "batch", "expires"])
        until = batch.expires_at.isoformat() if batch.expires_at else ""
        worth = f"{batch.amount // formats.MICRO}.{batch.amount % formats.MICRO:06d}"
        codes = CODE.findall(request.POST.get("codes", ""))[: credits.MOST_CODES]
        writer.writerows([code, worth, f"batch {batch.pk}", until] for code in codes)
        answer = HttpResponse("\ufeff" + buffer.getvalue(), content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = f'attachment; filename="codes-{batch.pk}.csv"'
        return answer

    @confirmed_action(
        title=gettext_lazy("Revoke"),
        text=gettext_lazy(
            "Codes of this batch that nobody has used yet are worth nothing from now on. It cannot be undone."
        ),
        submit=gettext_lazy("Revoke"),
        icon="block",
        variant=ActionVariant.DANGER,
    )
    def revoke(self, request: HttpRequest, form: NamedDialogForm, object_id: str) -> HttpResponse:
        credits.revoke_codes(form.target)
        messages.success(request, _("The unused codes of %(name)s were revoked.") % {"name": form.target})
        return back(request, origin(request, reverse("admin:accounts_redeembatch_changelist")))


def _is_over(batch: RedeemBatch) -> bool:
    return batch.expires_at is not None and batch.expires_at <= timezone.now()


def _code_row(code: RedeemCode) -> dict[str, Any]:
    return {
        "code": f"…{code.last4}",
        "user": code.used_by.username if code.used_by else formats.NOTHING,
        "url": reverse("admin:accounts_user_change", args=[code.used_by_id]) if code.used_by_id else "",
        "used": formats.ago(code.used_at),
    }


class BatchFilter(SimpleListFilter):
    """One batch, where a link led to it."""

    title = gettext_lazy("batch")
    parameter_name = "batch"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        number = self.value() or ""
        batch = RedeemBatch.objects.filter(pk=number).first() if number.isdecimal() else None
        return [(number, batch.name if batch else "?")] if number else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[RedeemCode]) -> QuerySet[RedeemCode]:
        number = self.value()
        if not number:
            return queryset
        return queryset.filter(batch_id=int(number)) if number.isdecimal() else queryset.none()


class UsedFilter(SimpleListFilter):
    title = gettext_lazy("already used")
    parameter_name = "used"

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [("yes", gettext_lazy("already used")), ("no", gettext_lazy("not used"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[RedeemCode]) -> QuerySet[RedeemCode]:
        return queryset.filter(used_at__isnull=self.value() == "no") if self.value() in {"yes", "no"} else queryset


@admin.register(RedeemCode)
class RedeemCodeAdmin(LongTableAdmin):
    """Who used which: reached from a batch."""

    administrators_only = True
    purpose = gettext_lazy("The codes of all batches appear here, with who redeemed them.")
    list_display = ("code", "batch_name", "user", "when")
    list_display_links = None
    list_select_related = ("batch", "used_by")
    list_filter = (UsedFilter, BatchFilter)
    search_fields = ("last4",)  # see get_search_results
    search_help_text = gettext_lazy("Last four characters, or user name")
    ordering = ("-id",)
    sortable_by = ()
    fields = ("code", "batch_name", "user", "when")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[RedeemCode], search_term: str
    ) -> tuple[QuerySet[RedeemCode], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        people = list(User.objects.filter(username__istartswith=term).values_list("pk", flat=True)[:200])
        found = queryset.filter(used_by_id__in=people)
        return (found or queryset.filter(last4=term[-4:].upper())), False

    @display(description=gettext_lazy("code"))
    def code(self, code: RedeemCode) -> str:
        return f"…{code.last4}"

    @display(description=gettext_lazy("batch"))
    def batch_name(self, code: RedeemCode) -> SafeString:
        url = reverse("admin:accounts_redeembatch_change", args=[code.batch_id])
        return format_html('<a class="c-link" href="{}">{}</a>', url, code.batch.name)

    @display(description=gettext_lazy("used by"))
    def user(self, code: RedeemCode) -> str | SafeString:
        if code.used_by is None:
            return formats.NOTHING
        url = reverse("admin:accounts_user_change", args=[code.used_by_id])
        return format_html('<a class="c-link" href="{}">{}</a>', url, code.used_by.username)

    @display(description=gettext_lazy("used"))
    def when(self, code: RedeemCode) -> str | SafeString:
        return formats.moment(code.used_at, with_date=True) if code.used_at else formats.NOTHING
