"""The audit log by the API, for administrators: pages of JSON, or one CSV."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import audit_reading, audit_words, selectors
from accounts.api.csv_answer import CsvAnswer, in_micro_credits, is_for_a_browser
from accounts.api.entering import valid
from accounts.models import AuditEntry, User
from accounts.models.audit import Area
from llmplatform.lib.api.permissions import IsAdministrator
from llmplatform.lib.api.serializers import ErrorBody, StrictSerializer
from llmplatform.lib.proxies import parse_address

AMOUNTS = audit_words.CREDITS | audit_words.PRICES
REFUSALS = {(status, "application/json"): ErrorBody for status in (400, 401, 403)}


class AuditQuery(StrictSerializer):
    since = serializers.DateTimeField(required=False, help_text="from this time on")
    until = serializers.DateTimeField(required=False, help_text="before this time")
    who = serializers.CharField(
        required=False,
        max_length=150,
        help_text="user name of the person who acted, or command:NAME and such; `command:` for all of them",
    )
    key = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1, help_text="id of the API key used")
    address = serializers.IPAddressField(required=False, help_text="from which the change or login came")
    area = serializers.ChoiceField(Area.values, required=False)
    action = serializers.CharField(required=False, max_length=60, help_text="for example user.login_failed")
    type = serializers.CharField(required=False, max_length=40, help_text="kind of object: user, key, model, node …")
    id = serializers.CharField(required=False, max_length=64, help_text="of the object; with type")
    name = serializers.CharField(
        required=False, max_length=200, help_text="an object's whole name, or the beginning of a person's"
    )
    limit = serializers.IntegerField(required=False, min_value=1, max_value=1000, default=100)
    cursor = serializers.CharField(required=False, max_length=200, help_text="`next` of the page before")
    format = serializers.ChoiceField(
        ["json", "csv"], required=False, default="json", help_text="csv: all rows, no pages"
    )


class AuditRow(serializers.Serializer[Any]):
    """`who` is a user name, `command:NAME` (the command line), `service:NAME` or `machine:…`; empty: not logged in."""

    id = serializers.IntegerField()
    time = serializers.DateTimeField(source="created_at")
    who = serializers.CharField(source="actor_name")
    key = serializers.CharField(default="", help_text="the API key that was used, if one was")
    address = serializers.CharField()
    area = serializers.ChoiceField(Area.values)
    action = serializers.CharField()
    type = serializers.CharField(source="target_type")
    object_id = serializers.CharField(source="target_id")
    name = serializers.CharField(source="target_name")
    changes = serializers.DictField(
        help_text='field: [before, after]; "changed" for a secret. Amounts are micro-credits.'
    )

    def to_representation(self, instance: AuditEntry) -> dict[str, Any]:
        return {**super().to_representation(instance), "key": str(instance.key or "")}


class AuditPage(serializers.Serializer[Any]):
    results = AuditRow(many=True)
    next = serializers.CharField(allow_null=True, help_text="cursor of the next page; null at the end")


class AuditView(APIView):
    permission_classes = [IsAdministrator]
    key_scopes = {"GET": "admin"}

    @extend_schema(
        tags=["audit"],
        summary="Who changed what, and failed logins",
        description="Newest first. `next` of one page is the `cursor` of the following one. `format=csv` gives all rows that "
        "match, as they are read.",
        parameters=[AuditQuery],
        responses={(200, "application/json"): AuditPage, (200, "text/csv"): OpenApiTypes.STR, **REFUSALS},
    )
    def get(self, request: Request) -> HttpResponseBase:
        query = valid(AuditQuery(data=request.query_params.dict()))
        rows = audit_reading.entries(_filter(query))
        if query["format"] == "csv":
            return csv_answer(rows, marked=is_for_a_browser(request))
        found = audit_reading.page(rows, _place(query), query["limit"] + 1)
        shown = found[: query["limit"]]
        more = len(found) > len(shown)
        return Response(
            {"results": AuditRow(shown, many=True).data, "next": str(selectors.Place.of(shown[-1])) if more else None}
        )


def csv_answer(rows: QuerySet[AuditEntry], *, marked: bool) -> CsvAnswer:
    """The same columns as in JSON, ``changes`` as JSON in one cell."""
    pages = ([_flat(row) for row in AuditRow(page, many=True).data] for page in audit_reading.pages(rows))
    return CsvAnswer(list(AuditRow().fields), pages, filename="audit.csv", marked=marked)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    changes = {in_micro_credits(name, AMOUNTS): change for name, change in row["changes"].items()}
    return {**row, "changes": json.dumps(changes, ensure_ascii=False) if changes else ""}


def _filter(query: dict[str, Any]) -> audit_reading.AuditFilter:
    who, program = None, query.get("who", "")
    if program and ":" not in program:
        who, program = User.objects.filter(username__iexact=program).values_list("pk", flat=True).first(), ""
        if who is None:
            raise ValidationError({"who": [_("There is no such user.")]})
    if "id" in query and "type" not in query:
        raise ValidationError({"id": [_("Only together with type.")]})
    return audit_reading.AuditFilter(
        since=query.get("since"),
        until=query.get("until"),
        actor_id=who,
        program=program,
        key_id=query.get("key"),
        address=str(parse_address(query.get("address", "")) or ""),
        area=query.get("area", ""),
        action=query.get("action", ""),
        target_type=query.get("type", ""),
        target_id=query.get("id", ""),
        name=query.get("name", ""),
    )


def _place(query: dict[str, Any]) -> selectors.Place | None:
    try:
        return selectors.Place.parse(query["cursor"]) if "cursor" in query else None
    except ValueError as error:
        raise ValidationError({"cursor": [_("This is not a cursor that was given out.")]}) from error
