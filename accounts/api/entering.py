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

from accounts import attempts, password_reset, second_factor, selectors, services
from accounts.api.authentication import check_second_factor, second_factor_missing
from accounts.api.serializers import (
    EmailSerializer,
    LoggedInSerializer,
    LoginSerializer,
    RefreshSerializer,
    RegisterSerializer,
    ResetSerializer,
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
    longest_body = 64 * 1024


def valid(serializer: BaseSerializer[Any]) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    data: dict[str, Any] = serializer.validated_data
    return data


def tokens(pair: services.TokenPair) -> dict[str, str]:
    return {"token": pair.access, "access": pair.access, "refresh": pair.refresh}


def logged_in(user: User) -> dict[str, Any]:
    return {"user": UserSerializer(user).data, **tokens(services.token_pair(user))}


def too_many(error: attempts.TooManyAttempts) -> ApiError:
    return ApiError("rate_limit_exceeded", str(error), 429, retry_after=error.retry_after)


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
        if user.is_active and not selectors.lacks_second_factor(user):
            return Response(logged_in(user), status=201)
        message = _("Your account is made. An administrator has to approve it before you can log in.")
        if user.is_active:
            message = _("Your account is made. Log in with a browser and set up the second factor that it must have.")
        return Response({"user": UserSerializer(user).data, "message": message}, status=202)


class LoginView(PublicView):
    @extend_schema(
        tags=TAG,
        summary="Log in",
        description="Accounts with a second factor send `otp` too: without it the answer is 401 `second_factor_required`, with a "
        "wrong or used one 401 `second_factor_invalid`. 403 `second_factor_setup_required`: the account must have a second "
        "factor and has none yet; it is set up in a browser, at /account/security.",
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
        check_second_factor(user)
        _prove_second_factor(user, given.get("otp", ""), request.META["REMOTE_ADDR"])
        services.note_login(user)
        return Response(logged_in(user))


class RefreshView(PublicView):
    @extend_schema(
        tags=TAG,
        summary="Renew tokens",
        description="Gives a new pair; the refresh token that was sent is used up.",
        request=RefreshSerializer,
        responses=answers({200: TokensSerializer}, 400, 401, 403, 413),
    )
    def post(self, request: Request) -> Response:
        given = valid(RefreshSerializer(data=request.data))
        try:
            _user, pair = services.renew_tokens(given["refresh"])
        except services.SecondFactorMissing as error:
            raise second_factor_missing() from error
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


class AskForResetView(PublicView):
    @extend_schema(
        tags=TAG,
        summary="Ask for a new password by mail",
        description="202 whether there is such an account or not. 404 where this service sends no mail.",
        request=EmailSerializer,
        responses=answers({202: None}, 400, 404, 413, 429),
    )
    def post(self, request: Request) -> Response:
        given = valid(EmailSerializer(data=request.data))
        if not password_reset.is_possible():
            raise ApiError("not_found", _("This service sends no mail. Ask the administrator for a new password."), 404)
        origin = f"{request.scheme}://{request.get_host()}"
        try:
            password_reset.ask(given["email"], request.META["REMOTE_ADDR"], origin)
        except attempts.TooManyAttempts as error:
            raise too_many(error) from error
        return Response(status=202)


class ResetView(PublicView):
    @extend_schema(
        tags=TAG,
        summary="Choose a new password with the link from the mail",
        description="Ends every token and session of the account.",
        request=ResetSerializer,
        responses=answers({204: None}, 400, 401, 413, 429),
    )
    def post(self, request: Request) -> Response:
        given = valid(ResetSerializer(data=request.data))
        try:
            attempts.count("password-reset", request.META["REMOTE_ADDR"])
            password_reset.confirm(**given)
        except attempts.TooManyAttempts as error:
            raise too_many(error) from error
        except password_reset.LinkRefused as error:
            text = _("This link was used already or is too old. Ask for another one.")
            raise ApiError("invalid_api_key", text, 401) from error
        return Response(status=204)


def _prove_second_factor(user: User, code: str, address: str) -> None:
    if not second_factor.is_on(user):
        return
    if not code:
        text = _("This account has a second factor: send a code of its app, or a recovery code, as otp.")
        raise ApiError("second_factor_required", text, 401)
    try:
        second_factor.check(user, code, address)
    except attempts.TooManyAttempts as error:
        raise too_many(error) from error
    except second_factor.CodeRefused as error:
        text = _("This code is wrong, too old or was used before.")
        raise ApiError("second_factor_invalid", text, 401) from error


def _asked_language(request: Request) -> str:
    return (get_language() or "") if "HTTP_ACCEPT_LANGUAGE" in request.META else ""


def refuse_token(error: services.TokenRefused) -> NoReturn:
    raise ApiError(
        "invalid_api_key", _("This refresh token is wrong, expired or used already; log in again."), 401
    ) from error
