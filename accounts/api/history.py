"""Usage and ledger: one's own, or everybody's for operators; pages of JSON or one CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.http.response import HttpResponseBase
from django.utils.translation import gettext as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from accounts import selectors
from accounts.api.csv_answer import CsvAnswer, is_for_a_browser
from accounts.api.entering import TAG, valid
from accounts.api.profile import caller
from accounts.api.serializers import LedgerPage, LedgerQuery, LedgerRow, UsagePage, UsageQuery, UsageRow
from accounts.models import ApiKey, Group, LedgerEntry, Scope, UsageRecord, User
from llmplatform.lib.api.serializers import ErrorBody

CSV_PAGE = 1000
NO_GROUP = -1  # no row has it
DESCRIPTION = (
    "Newest first. `next` of one page is the `cursor` of the following one. Operators see everybody's, others their own. "
    "`format=csv` gives all rows that match, as they are read."
)
REFUSALS = {(status, "application/json"): ErrorBody for status in (400, 401, 403)}

Row = UsageRecord | LedgerEntry
Page = Callable[[selectors.HistoryFilter, selectors.Place | None, int], list[Any]]


class UsageView(APIView):
    key_scopes = {"GET": Scope.USAGE_READ}

    @extend_schema(
        tags=TAG,
        summary="Usage, one row per request",
        description=DESCRIPTION,
        parameters=[UsageQuery],
        responses={(200, "application/json"): UsagePage, (200, "text/csv"): OpenApiTypes.STR, **REFUSALS},
    )
    def get(self, request: Request) -> HttpResponseBase:
        return _answer(request, valid(UsageQuery(data=request.query_params.dict())), selectors.usage_page, UsageRow)


class LedgerView(APIView):
    key_scopes = {"GET": Scope.USAGE_READ}

    @extend_schema(
        tags=TAG,
        summary="Ledger, one row per change of a balance",
        description=DESCRIPTION,
        parameters=[LedgerQuery],
        responses={(200, "application/json"): LedgerPage, (200, "text/csv"): OpenApiTypes.STR, **REFUSALS},
    )
    def get(self, request: Request) -> HttpResponseBase:
        return _answer(request, valid(LedgerQuery(data=request.query_params.dict())), selectors.ledger_page, LedgerRow)


def _answer(request: Request, query: dict[str, Any], page: Page, row: type[Serializer[Any]]) -> HttpResponseBase:
    wanted = _filter(caller(request), query)
    if query["format"] == "csv":
        return CsvAnswer(
            list(row().fields),
            _all_rows(wanted, page, row),
            filename=f"{page.__name__.split('_')[0]}.csv",
            marked=is_for_a_browser(request),
        )
    try:
        place = selectors.Place.parse(query["cursor"]) if "cursor" in query else None
    except ValueError as error:
        raise ValidationError({"cursor": [_("This is not a cursor that was given out.")]}) from error
    rows = page(wanted, place, query["limit"] + 1)
    more = len(rows) > query["limit"]
    shown = rows[: query["limit"]]
    return Response(
        {"results": row(shown, many=True).data, "next": str(selectors.Place.of(shown[-1])) if more else None}
    )


def _filter(user: User, query: dict[str, Any]) -> selectors.HistoryFilter:
    """What the query asks for, within what this user may see."""
    user_id = visible_user_id(user, query)
    return selectors.HistoryFilter(
        user_id=user_id,
        key_id=checked_key(query.get("key"), user_id),
        group_id=group_id(user, query),
        since=query.get("since"),
        until=query.get("until"),
        model_name=query.get("model", ""),
        kind=query.get("kind", ""),
    )


def visible_user_id(user: User, query: dict[str, Any]) -> int | None:
    """Whose usage is meant: for operators the one asked for or everybody's (None), for others their own."""
    if user.role != "user":
        return _named(query["user"]).pk if "user" in query else None
    if query.get("user", user.username).lower() != user.username.lower():
        raise PermissionDenied
    return user.pk


def checked_key(key_id: int | None, owner_id: int | None) -> int | None:
    """The same id when it is a key of the owner (None: of anybody) or 0. Others' keys do not exist for whoever asks."""
    if not key_id:
        return key_id
    keys = ApiKey.objects.filter(pk=key_id)
    if not (keys if owner_id is None else keys.filter(user_id=owner_id)).exists():
        raise ValidationError({"key": [_("There is no such key.")]})
    return key_id


def group_id(user: User, query: dict[str, Any]) -> int | None:
    """Of the group that is asked for; 0: requests without one. Users do not learn which groups there are."""
    name = query.get("group")
    if not name:
        return None if name is None else 0
    found = Group.objects.filter(name__iexact=name).values_list("pk", flat=True).first()
    if found is None and user.role != "user":
        raise ValidationError({"group": [_("There is no such group.")]})
    return found or NO_GROUP


def _named(username: str) -> User:
    for user in selectors.users_named(username):
        if user.username.lower() == username.lower():
            return user
    raise ValidationError({"user": [_("There is no such user.")]})


def _all_rows(
    wanted: selectors.HistoryFilter, page: Page, row: type[Serializer[Any]]
) -> Iterator[Iterable[dict[str, Any]]]:
    place: selectors.Place | None = None
    while rows := page(wanted, place, CSV_PAGE):
        yield row(rows, many=True).data
        place = selectors.Place.of(rows[-1])
