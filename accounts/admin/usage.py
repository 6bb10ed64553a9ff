"""Console pages for what was used."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import display

from accounts.admin.filters import GroupFilter, KeyFilter, ModelNameFilter, TimeFilter
from accounts.models import UsageRecord, User
from llmplatform.lib.console import formats
from llmplatform.lib.console.admin import LongTableAdmin
from llmplatform.lib.console.badges import Kind, badge

OUTCOME_KINDS: dict[str, Kind] = {"completed": "good", "cancelled": "off", "failed": "bad", "refused": "warn"}


@admin.register(UsageRecord)
class UsageRecordAdmin(LongTableAdmin):
    list_display = ("when", "who", "model_name", "outcome_badge", "tokens", "waited", "first", "speed", "cost_credits")
    list_filter = (ModelNameFilter, "outcome", TimeFilter, KeyFilter, GroupFilter)
    fields = (
        "request_id", "full_time", "who", "key", "group", "outcome_badge", "status", "model_name", "replica", "endpoint",
        "source", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_credits", "waited", "first", "took", "speed",
        "resumed",
    )  # fmt: skip
    search_fields = ("request_id",)  # see get_search_results
    search_help_text = gettext_lazy("Request id or user name")
    list_select_related = ("key",)
    ordering = ("-created_at", "-id")
    sortable_by = ()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UsageRecord], search_term: str
    ) -> tuple[QuerySet[UsageRecord], bool]:
        """By index only: one request, or people found in the small table of users."""
        if not search_term:
            return queryset, False
        by_request = queryset.filter(request_id=search_term)
        if by_request.exists():
            return by_request, False
        people = list(User.objects.filter(username__istartswith=search_term).values_list("pk", flat=True)[:200])
        # One id is looked for with "=", for which the index also gives the order.
        return queryset.filter(user_id=people[0]) if len(people) == 1 else queryset.filter(user_id__in=people), False

    @display(description=gettext_lazy("time"))
    def when(self, record: UsageRecord) -> str | SafeString:
        return formats.moment(record.created_at)

    @display(description=gettext_lazy("user"))
    def who(self, record: UsageRecord) -> str:
        return record.username or formats.NOTHING

    @display(description=gettext_lazy("outcome"))
    def outcome_badge(self, record: UsageRecord) -> SafeString:
        return badge(record.get_outcome_display(), OUTCOME_KINDS.get(record.outcome, "off"))

    @display(description=gettext_lazy("tokens"))
    def tokens(self, record: UsageRecord) -> str:
        """Read and written."""
        return f"{formats.number(record.prompt_tokens)} + {formats.number(record.completion_tokens)}"

    @display(description=gettext_lazy("waited"))
    def waited(self, record: UsageRecord) -> str:
        return formats.milliseconds(record.queue_ms)

    @display(description=gettext_lazy("first token"))
    def first(self, record: UsageRecord) -> str:
        return formats.milliseconds(record.first_token_ms)

    @display(description=gettext_lazy("duration"))
    def took(self, record: UsageRecord) -> str:
        return formats.milliseconds(record.duration_ms)

    @display(description=gettext_lazy("time"))
    def full_time(self, record: UsageRecord) -> str | SafeString:
        return formats.moment(record.created_at, with_date=True)

    @display(description=gettext_lazy("speed"))
    def speed(self, record: UsageRecord) -> str:
        if record.tokens_per_second is None:
            return formats.NOTHING
        return _("%(number)s tokens/s") % {"number": formats.number(record.tokens_per_second, 1)}

    @display(description=gettext_lazy("cost"))
    def cost_credits(self, record: UsageRecord) -> str:
        return formats.credits(record.cost)
