"""Redeeming a code."""

from __future__ import annotations

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import attempts, credits
from accounts.api.entering import TAG, too_many, valid
from accounts.api.profile import caller
from accounts.api.serializers import RedeemedSerializer, RedeemSerializer, UserSerializer
from llmplatform.lib.api.serializers import answers
from llmplatform.lib.errors import ApiError


class RedeemView(APIView):
    @extend_schema(
        tags=TAG,
        summary="Redeem a code",
        description="Adds what the code is worth to the balance, once. 404 `code_unknown`, 409 `code_used`, 410 `code_expired`.",
        request=RedeemSerializer,
        responses=answers({200: RedeemedSerializer}, 400, 401, 403, 404, 409, 410, 413, 429),
    )
    def post(self, request: Request) -> Response:
        given = valid(RedeemSerializer(data=request.data))
        user = caller(request)
        try:
            attempts.count("redeem", request.META["REMOTE_ADDR"])
            entry = credits.redeem(user, given["code"])
        except attempts.TooManyAttempts as error:
            raise too_many(error) from error
        except credits.CodeRefused as error:
            status = {"unknown": 404, "used": 409, "expired": 410}[error.reason]
            raise ApiError(f"code_{error.reason}", error.message(), status) from error
        except ValueError as error:
            raise ApiError("invalid_request", _("The balance would be too large."), 409) from error
        user = type(user).objects.get(pk=user.pk)
        return Response({"amount": entry.available_change, "user": UserSerializer(user).data})
