"""One's own account, and an administrator's hand on another one's balance."""

from __future__ import annotations

from hashlib import sha256
from typing import cast

from django.contrib.auth import update_session_auth_hash
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import attempts, quota, services
from accounts.api.authentication import NO_KEY
from accounts.api.entering import TAG, tokens, too_many, valid
from accounts.api.serializers import (
    CreditsSerializer,
    PasswordSerializer,
    ProfileSerializer,
    TokensSerializer,
    UserSerializer,
)
from accounts.models import Scope, User
from llmplatform.lib.api.errors import ApiError
from llmplatform.lib.api.permissions import IsAdministrator
from llmplatform.lib.api.serializers import answers


def caller(request: Request) -> User:
    """The logged-in user; the permission classes have seen to it that there is one."""
    return cast(User, request.user)


class MeView(APIView):
    key_scopes = {"GET": Scope.USAGE_READ}

    @extend_schema(tags=TAG, summary="My account and balance", responses=answers({200: UserSerializer}, 401))
    def get(self, request: Request) -> Response:
        return Response(UserSerializer(caller(request)).data)

    @extend_schema(
        tags=TAG,
        summary="Change my profile",
        request=ProfileSerializer,
        responses=answers({200: UserSerializer}, 400, 401, 403, 413),
    )
    def patch(self, request: Request) -> Response:
        changes = valid(ProfileSerializer(data=request.data))
        return Response(UserSerializer(services.update_profile(caller(request), changes)).data)


class PasswordView(APIView):
    key_scopes = {"POST": NO_KEY}

    @extend_schema(
        tags=TAG,
        summary="Change my password",
        description="Ends every token and session of the account; the answer holds a new pair for this caller.",
        request=PasswordSerializer,
        responses=answers({200: TokensSerializer}, 400, 401, 403, 413, 429),
    )
    def post(self, request: Request) -> Response:
        given = valid(PasswordSerializer(data=request.data))
        user = caller(request)
        try:
            services.change_password(user, given["old_password"], given["new_password"], request.META["REMOTE_ADDR"])
        except attempts.TooManyAttempts as error:
            raise too_many(error) from error
        if request.auth is None:  # a browser: its session goes on
            update_session_auth_hash(request._request, user)
        return Response(tokens(services.token_pair(user)))


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255},
    OpenApiParameter.HEADER,
    description="anything that is another one for each change, such as a UUID",
)


def _change_id(request: Request, user: User) -> str:
    """What the ledger knows this change by, so that it is made once; "" without the header."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return ""
    if not 0 < len(key) <= 255:
        raise ValidationError({"Idempotency-Key": [_("1 to 255 characters.")]})
    return f"topup-{user.pk}-{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


class CreditsView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG,
        summary="Top up or correct a balance",
        description="With the header `Idempotency-Key` it is safe to ask again when no answer came: what was done under this "
        "key for this user is not done a second time, and answered as the first time, with the balance of now. "
        "The same key with another amount or note is 409 `idempotency_key_used`.",
        parameters=[IDEMPOTENCY_KEY],
        request=CreditsSerializer,
        responses=answers({200: UserSerializer}, 400, 401, 403, 404, 409, 413),
    )
    def post(self, request: Request, user_id: int) -> Response:
        given = valid(CreditsSerializer(data=request.data))
        user = get_object_or_404(User, pk=user_id)
        change = quota.top_up if given["amount"] > 0 else quota.adjust
        request_id = _change_id(request, user)
        try:
            change(quota.ensure_wallet(user), given["amount"], given["note"], request_id=request_id)
        except quota.RequestIdUsed as error:
            text = _("Something else was done under this Idempotency-Key; take a new one.")
            raise ApiError("idempotency_key_used", text, 409) from error
        except quota.InsufficientQuota as error:
            raise ApiError("insufficient_quota", _("The balance is smaller than that."), 409) from error
        except ValueError as error:
            raise ApiError(
                "invalid_request",
                _("Some fields are not right; details says which."),
                details={"amount": [_("Not a possible amount.")]},
            ) from error
        return Response(UserSerializer(user).data)
