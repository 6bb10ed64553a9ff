"""API keys: one's own; for administrators everybody's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.core.exceptions import ValidationError as Invalid
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import keys, selectors
from accounts.api.authentication import KeyAuth
from accounts.api.entering import valid
from accounts.api.key_serializers import (
    COLUMNS,
    LIMITS,
    KeyChangesSerializer,
    KeyQuery,
    KeySerializer,
    KeysSerializer,
    NewKeySerializer,
    RotateSerializer,
    SecretKeySerializer,
)
from accounts.api.profile import caller
from accounts.models import ApiKey, User
from llmplatform.lib.api.serializers import answers

TAG = ["keys"]


@contextmanager
def in_callers_names() -> Iterator[None]:
    """The service names columns; callers know the fields of the API."""
    try:
        yield
    except Invalid as error:
        names = {column: name for name, column in {**COLUMNS, **LIMITS}.items()}
        raise Invalid({names.get(name, name): texts for name, texts in error.message_dict.items()}) from error


def with_secret(key: ApiKey, secret: str) -> Response:
    """The only answer that holds a key; nothing on the way may keep it."""
    return Response({**KeySerializer(key).data, "key": secret}, status=201, headers={"Cache-Control": "no-store"})


def create_for(owner: User, request: Request) -> Response:
    """By what the body asks for, within the bounds of the key that asks, if one does."""
    wanted = valid(NewKeySerializer(data=request.data))
    full = {**_plain_key(), **wanted}
    with in_callers_names():
        if isinstance(request.auth, KeyAuth):
            keys.check_no_wider(request.auth.key, full)
        return with_secret(*keys.create_key(owner, keys.NewKey(**full), by=caller(request)))


def _plain_key() -> dict[str, Any]:
    plain = keys.NewKey(name="")
    return {name: getattr(plain, name) for name in keys.FIELDS}


def _visible(request: Request) -> QuerySet[ApiKey]:
    """Looked up with their owner, so that somebody else's id is as unknown as one that does not exist."""
    rows = ApiKey.objects.select_related("user", "root")
    user = caller(request)
    return rows if user.role == "admin" else rows.filter(user=user)


class KeysView(APIView):
    @extend_schema(
        tags=TAG,
        summary="My API keys",
        description="Administrators see another person's with `user`, and everybody's with `user=*`.",
        parameters=[KeyQuery],
        responses=answers({200: KeysSerializer}, 400, 401, 403),
        operation_id="keys",
    )
    def get(self, request: Request) -> Response:
        asked = valid(KeyQuery(data=request.query_params.dict()))
        rows = _visible(request)
        name = asked.get("user", caller(request).username)
        if name != "*":
            rows = rows.filter(user=_owner(request, name))
        elif caller(request).role != "admin":
            raise PermissionDenied
        if not asked["ended"]:
            rows = rows.filter(revoked_at=None)
        shown = list(rows.order_by("-pk")[: asked["limit"]])
        return Response({"keys": KeySerializer(shown, many=True).data})

    @extend_schema(
        tags=TAG,
        summary="Make an API key",
        description="The answer holds the key itself, in `key`. It is told this once. "
        "A key that makes keys gives away no more than it has itself.",
        request=NewKeySerializer,
        responses=answers({201: SecretKeySerializer}, 400, 401, 403, 413),
        operation_id="key_create",
    )
    def post(self, request: Request) -> Response:
        return create_for(caller(request), request)


def _owner(request: Request, name: str) -> User:
    user = caller(request)
    if name.lower() == user.username.lower():
        return user
    if user.role != "admin":
        raise PermissionDenied
    for found in selectors.users_named(name):
        if found.username.lower() == name.lower():
            return found
    raise ValidationError({"user": [_("There is no such user.")]})


class KeyView(APIView):
    @extend_schema(
        tags=TAG,
        summary="One API key",
        responses=answers({200: KeySerializer}, 401, 403, 404),
        operation_id="key",
    )
    def get(self, request: Request, key_id: int) -> Response:
        return Response(KeySerializer(get_object_or_404(_visible(request), pk=key_id)).data)

    @extend_schema(
        tags=TAG,
        summary="Change an API key",
        request=KeyChangesSerializer,
        responses=answers({200: KeySerializer}, 400, 401, 403, 404, 413),
        operation_id="key_change",
    )
    def patch(self, request: Request, key_id: int) -> Response:
        key = get_object_or_404(_visible(request), pk=key_id)
        changes = valid(KeyChangesSerializer(data=request.data))
        with in_callers_names():
            if isinstance(request.auth, KeyAuth):
                keys.check_no_wider(request.auth.key, changes)
            return Response(KeySerializer(keys.update_key(key, changes, by=caller(request))).data)

    @extend_schema(
        tags=TAG,
        summary="Revoke an API key",
        description="It is refused everywhere within 5 seconds. The row stays, so that usage goes on naming it.",
        responses=answers({204: None}, 401, 403, 404),
        operation_id="key_revoke",
    )
    def delete(self, request: Request, key_id: int) -> Response:
        keys.revoke_key(get_object_or_404(_visible(request), pk=key_id), by=caller(request))
        return Response(status=204)


class RotateKeyView(APIView):
    @extend_schema(
        tags=TAG,
        summary="Give an API key a new secret",
        description="A new key with the same rights; the old one goes on for `overlap_seconds`. "
        "Both draw on one budget and one set of limits.",
        request=RotateSerializer,
        responses=answers({201: SecretKeySerializer}, 400, 401, 403, 404, 413),
        operation_id="key_rotate",
    )
    def post(self, request: Request, key_id: int) -> Response:
        key = get_object_or_404(_visible(request), pk=key_id)
        given = valid(RotateSerializer(data=request.data))
        if isinstance(request.auth, KeyAuth):
            with in_callers_names():
                keys.check_no_wider(request.auth.key, {name: getattr(key, name) for name in keys.FIELDS})
        return with_secret(*keys.rotate_key(key, timedelta(seconds=given["overlap_seconds"]), by=caller(request)))
