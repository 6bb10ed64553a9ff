"""One's own account, and an administrator's hand on another one's balance."""

from __future__ import annotations

from typing import cast

from django.contrib.auth import update_session_auth_hash
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import attempts, quota, services
from accounts.api.entering import TAG, tokens, too_many, valid
from accounts.api.serializers import (
    CreditsSerializer,
    PasswordSerializer,
    ProfileSerializer,
    TokensSerializer,
    UserSerializer,
)
from accounts.models import User
from llmplatform.lib.api.errors import ApiError
from llmplatform.lib.api.permissions import IsAdministrator
from llmplatform.lib.api.serializers import answers


def caller(request: Request) -> User:
    """The logged-in user; the permission classes have seen to it that there is one."""
    return cast(User, request.user)


class MeView(APIView):
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


class CreditsView(APIView):
    permission_classes = [IsAdministrator]

    @extend_schema(
        tags=TAG,
        summary="Top up or correct a balance",
        request=CreditsSerializer,
        responses=answers({200: UserSerializer}, 400, 401, 403, 404, 409, 413),
    )
    def post(self, request: Request, user_id: int) -> Response:
        given = valid(CreditsSerializer(data=request.data))
        user = get_object_or_404(User, pk=user_id)
        change = quota.top_up if given["amount"] > 0 else quota.adjust
        try:
            change(quota.ensure_wallet(user), given["amount"], given["note"])
        except quota.InsufficientQuota as error:
            raise ApiError("insufficient_quota", _("The balance is smaller than that."), 409) from error
        except ValueError as error:
            raise ApiError(
                "invalid_request",
                _("Some fields are not right; details says which."),
                details={"amount": [_("Not a possible amount.")]},
            ) from error
        return Response(UserSerializer(user).data)
