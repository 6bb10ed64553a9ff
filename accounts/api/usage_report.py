"""Sums of usage: by user, key, model, group or day."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.csv_answer import CsvAnswer, is_for_a_browser
from accounts.api.entering import TAG, valid
from accounts.api.history import REFUSALS, checked_key, group_id, visible_user_id
from accounts.api.profile import caller
from accounts.api.serializers import MomentField
from accounts.models import Scope
from accounts.usage_reports import FIGURES, LONGEST, SORTS, Figures, Report, start_of, usage_report
from llmplatform.lib.api.serializers import StrictSerializer

DAYS = 30
DESCRIPTION = (
    "Sums over the hours (of UTC) that begin in the period, largest first. Operators see everybody's, others their own. "
    "`totals` are over all rows, also those that `limit` leaves out. Times to the first token are right to ±9 %. "
    "`format=csv` gives the same rows as a file."
)


class ReportQuery(StrictSerializer):
    by = serializers.ChoiceField(["user", "key", "model", "group", "day"], required=False, default="user")
    since = MomentField(
        required=False, help_text="from this time on, or a day; missing: 30 days. A report holds 366 days at most"
    )
    until = MomentField(required=False, help_text="before this time, or a day; missing: now")
    timezone = serializers.CharField(
        required=False,
        max_length=64,
        help_text="of days, and of times that state no offset, such as `Asia/Shanghai`; missing: the service's",
    )
    user = serializers.CharField(
        required=False, max_length=150, help_text="a user name; others than yourself: operators"
    )
    key = serializers.IntegerField(required=False, min_value=0, max_value=2**62, help_text="id of a key; 0: without")
    model = serializers.CharField(required=False, max_length=200)
    group = serializers.CharField(required=False, allow_blank=True, max_length=100, help_text="its name; empty: none")
    group_id = serializers.IntegerField(
        required=False, min_value=0, max_value=2**62, help_text="of a group, also one that is gone; 0: none"
    )
    sort = serializers.ChoiceField(SORTS, required=False, help_text="missing: `tokens`, and `name` for days")
    limit = serializers.IntegerField(required=False, min_value=1, max_value=10_000, default=100)
    format = serializers.ChoiceField(["json", "csv"], required=False, default="json")

    def to_internal_value(self, data: Any) -> Any:
        """With ``zone`` added. Days and times without an offset are meant in it."""
        zone = _zone(data["timezone"]) if data.get("timezone") else timezone.get_current_timezone()
        with timezone.override(zone):
            return {**super().to_internal_value(data), "zone": zone}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "group" in attrs and "group_id" in attrs:
            raise serializers.ValidationError({"group_id": [_("Not together with group.")]})
        now = timezone.now()
        until: datetime = attrs.setdefault("until", now)
        month = until if until is not now else start_of(now.astimezone(attrs["zone"]).date(), attrs["zone"])
        since: datetime = attrs.setdefault("since", month - timedelta(days=DAYS if until is not now else DAYS - 1))
        if since >= until:
            raise serializers.ValidationError({"since": [_("The period ends before it begins.")]})
        if until - since > LONGEST:
            days = LONGEST.days - 1
            raise serializers.ValidationError({"since": [_("A report holds %(days)d days at most.") % {"days": days}]})
        return attrs


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise serializers.ValidationError({"timezone": [_("There is no such time zone.")]}) from error


class UsageFigures(serializers.Serializer[Any]):
    requests = serializers.IntegerField()
    errors = serializers.IntegerField(help_text="of the requests, those that failed")  # type: ignore[assignment]
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField(help_text="of the prompt tokens, those from the cache")
    completion_tokens = serializers.IntegerField()
    cost = serializers.IntegerField(help_text="micro-credits")
    tokens = serializers.IntegerField(help_text="prompt and completion")
    first_token_median_ms = serializers.IntegerField(allow_null=True, help_text="±9 %")
    first_token_p95_ms = serializers.IntegerField(allow_null=True, help_text="±9 %")


class UsageReportRow(UsageFigures):
    id = serializers.IntegerField(
        allow_null=True, help_text="of the user, key or group; null for models, days, and requests without key or group"
    )
    name = serializers.CharField(help_text="of the user, key, model or group, empty for none; or the day: 2026-03-31")
    owner = serializers.CharField(help_text="whose key it is; empty for all but keys")


class UsageReportAnswer(serializers.Serializer[Any]):
    by = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    timezone = serializers.CharField()
    rows = UsageReportRow(many=True)
    totals = UsageFigures()
    count = serializers.IntegerField(help_text="rows there are without `limit`")


class UsageReportView(APIView):
    key_scopes = {"GET": Scope.USAGE_READ}

    @extend_schema(
        tags=TAG,
        summary="Usage, added up by user, key, model, group or day",
        description=DESCRIPTION,
        parameters=[ReportQuery],
        responses={(200, "application/json"): UsageReportAnswer, (200, "text/csv"): OpenApiTypes.STR, **REFUSALS},
    )
    def get(self, request: Request) -> HttpResponseBase:
        query = valid(ReportQuery(data=request.query_params.dict()))
        report = _report(request, query)
        rows = [{"id": row.id, "name": row.name, "owner": row.owner, **_figures(row.figures)} for row in report.rows]
        if query["format"] == "csv":
            return CsvAnswer(
                ["id", "name", "owner", *FIGURES],
                [rows],
                filename=f"usage-by-{query['by']}.csv",
                marked=is_for_a_browser(request),
            )
        head = {"by": query["by"], "since": query["since"], "until": query["until"], "timezone": str(query["zone"])}
        return Response({**head, "rows": rows, "totals": _figures(report.totals), "count": report.count})


def _figures(figures: Figures) -> dict[str, Any]:
    values = asdict(figures)
    return {name: values[name] for name in FIGURES}


def _report(request: Request, query: dict[str, Any]) -> Report:
    user_id = visible_user_id(caller(request), query)
    return usage_report(
        query["by"],
        query["since"],
        query["until"],
        user_id=user_id,
        key_id=checked_key(query.get("key"), user_id),
        model=query.get("model", ""),
        group_id=query["group_id"] if "group_id" in query else group_id(caller(request), query),
        sort=query.get("sort", ""),
        limit=query["limit"],
        zone=query["zone"],
    )
