"""Getting in and out: register, log in, renew tokens, log out. Who is not logged in yet may call these."""

from __future__ import annotations

from typing import Any, NoReturn

from django.utils.translation import get_language
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from accounts import attempts, services
from accounts.api.serializers import (
    LoggedInSerializer,
    LoginSerializer,
    RefreshSerializer,
    RegisterSerializer,
    TokensSerializer,
    UserSerializer,
    WaitingSerializer,
)
from accounts.models import User
from llmplatform.lib.api.errors import ApiError
from llmplatform.lib.api.serializers import answers

TAG = ["accounts"]


class PublicView(APIView):
    """No credentials are looked at: an expired token in a header must not stop a login."""

    authentication_classes = []
    permission_classes = [AllowAny]


def valid(serializer: BaseSerializer[Any]) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    data: dict[str, Any] = serializer.validated_data
    return data


def tokens(pair: services.TokenPair) -> dict[str, str]:
    return {"token": pair.access, "access": pair.access, "refresh": pair.refresh}


def logged_in(user: User) -> dict[str, Any]:
    return {"user": UserSerializer(user).data, **tokens(services.token_pair(user))}


def too_many(error: attempts.TooManyAttempts) -> ApiError:
    return ApiError(
        "rate_limit_exceeded",
        _("Too many attempts from your address; try again in %(seconds)d seconds.") % {"seconds": error.retry_after},
        429,
        retry_after=error.retry_after,
    )


class RegisterView(PublicView):
    @extend_schema(
        tags=TAG,
        summary="Register",
        description="`REGISTRATION=open`: 201 and logged in. `approval`: 202, an administrator has to approve. `closed`: 403.",
        request=RegisterSerializer,
        responses=answers({201: LoggedInSerializer, 202: WaitingSerializer}, 400, 403, 413, 429),
    )
    def post(self, request: Request) -> Response:
        given = valid(RegisterSerializer(data=request.data))
        try:
            attempts.count("register", request.META["REMOTE_ADDR"])
            user = services.register_user(**{"language": _asked_language(request), **given})
        except attempts.TooManyAttempts as error:
            raise too_many(error) from error
        except services.RegistrationClosed as error:
            raise ApiError(
                "registration_closed", _("Accounts are made by an administrator here; ask yours."), 403
            ) from error
        if user.is_active:
            return Response(logged_in(user), status=201)
        message = _("Your account is made. An administrator has to approve it before you can log in.")
        return Response({"user": UserSerializer(user).data, "message": message}, status=202)


class LoginView(PublicView):
    @extend_schema(
        tags=TAG,
        summary="Log in",
        request=LoginSerializer,
        responses=answers({200: LoggedInSerializer}, 400, 401, 403, 413, 429),
    )
    def post(self, request: Request) -> Response:
        given = valid(LoginSerializer(data=request.data))
        try:
            user = services.user_with_password(given["username"], given["password"], request.META["REMOTE_ADDR"])
        except attempts.TooManyAttempts as error:
            raise too_many(error) from error
        except services.AccountInactive as error:
            raise ApiError(
                "permission_denied",
                _("This account is not active: it waits for an administrator's approval, or was disabled."),
                403,
            ) from error
        except services.WrongCredentials as error:
            raise ApiError("invalid_api_key", _("User name or password is wrong."), 401) from error
        services.note_login(user)
        return Response(logged_in(user))


class RefreshView(PublicView):
    @extend_schema(
        tags=TAG,
        summary="Renew tokens",
        description="Gives a new pair; the refresh token that was sent is used up.",
        request=RefreshSerializer,
        responses=answers({200: TokensSerializer}, 400, 401, 413),
    )
    def post(self, request: Request) -> Response:
        given = valid(RefreshSerializer(data=request.data))
        try:
            _user, pair = services.renew_tokens(given["refresh"])
        except services.TokenRefused as error:
            refuse_token(error)
        return Response(tokens(pair))


class LogoutView(PublicView):
    @extend_schema(
        tags=TAG,
        summary="Log out",
        description="The refresh token gives no new ones from now on; access tokens made with it end by themselves.",
        request=RefreshSerializer,
        responses=answers({204: None}, 400, 401, 413),
    )
    def post(self, request: Request) -> Response:
        given = valid(RefreshSerializer(data=request.data))
        try:
            services.end_refresh_token(given["refresh"])
        except services.TokenRefused as error:
            refuse_token(error)
        return Response(status=204)


def _asked_language(request: Request) -> str:
    return (get_language() or "") if "HTTP_ACCEPT_LANGUAGE" in request.META else ""


def refuse_token(error: services.TokenRefused) -> NoReturn:
    raise ApiError(
        "invalid_api_key", _("This refresh token is wrong, expired or used already; log in again."), 401
    ) from error
