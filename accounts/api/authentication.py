"""How REST callers prove who they are: a token or key, or the browser's session; and what a key may be used for.

A view says which scope a key needs in ``key_scopes``, by method: ``key_scopes = {"GET": "usage:read"}``. What it does not name
needs ``admin``; ``NO_KEY`` is for what no key may do. It is looked at here, where every request passes: no view can forget it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from django.utils import translation
from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication
from rest_framework.authentication import SessionAuthentication as DrfSessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import InvalidToken, TokenError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import AccessToken, Token

from accounts import callers, selectors
from accounts.callers import KEY_PREFIX, Caller, NotAllowed, NotAuthenticated, user_number
from accounts.models import ApiKey, Scope, User
from llmplatform.lib import credentials
from llmplatform.lib.api.errors import ApiError

NO_KEY = "-"


@dataclass(frozen=True, slots=True)
class KeyAuth:
    """``request.auth`` of a caller with an API key."""

    key: ApiKey


class BearerAuthentication(BaseAuthentication):
    """JWT access tokens and API keys, in ``Authorization`` or ``x-api-key``."""

    def authenticate(self, request: Request) -> tuple[User, Token | KeyAuth] | None:
        try:
            token = credentials.token_of_request(request._request)
            if token is None:
                return None
            user, auth = self._by_key(request, token) if token.startswith(KEY_PREFIX) else self._by_jwt(token)
        except NotAuthenticated as error:
            raise AuthenticationFailed from error
        except NotAllowed as error:
            text = _("This key may not be used from the address %(address)s.")
            raise _denied(text % {"address": error}) from error
        _refuse_another_cookie(request, user)
        if user.language and "HTTP_ACCEPT_LANGUAGE" not in request.META:
            # A program that states no language gets its user's; the middleware chooses anew at the next request.
            translation.activate(user.language)
        return user, auth

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'

    def _by_key(self, request: Request, token: str) -> tuple[User, KeyAuth]:
        key = callers.key_from_token(token, request.META.get("REMOTE_ADDR", ""))
        scope = _needed_scope(request)
        if scope == NO_KEY:
            raise _denied(_("No key may be used for that; log in."))
        if scope not in key.scopes:
            text = _("This key may not be used for that: it lacks the scope “%(scope)s”.")
            raise _denied(text % {"scope": scope})
        return key.user, KeyAuth(key)

    def _by_jwt(self, token: str) -> tuple[User, Token]:
        try:
            validated = AccessToken(token)
            user_number(validated.get(api_settings.USER_ID_CLAIM))  # else the database would be asked for it, and raise
            user: User = JWTAuthentication().get_user(validated)
        except (InvalidToken, TokenError, ValueError) as error:
            raise AuthenticationFailed from error
        check_second_factor(user)
        return user, validated


class SessionAuthentication(DrfSessionAuthentication):
    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        found: tuple[Any, Any] | None = super().authenticate(request)
        if found is not None:
            check_second_factor(found[0])
        return found

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


def check_second_factor(user: User) -> None:
    """Raises ApiError for somebody who must have one and has none: also with a token from before that was so. Keys go on."""
    if selectors.lacks_second_factor(user):
        raise second_factor_missing()


def second_factor_missing() -> ApiError:
    text = _("Your account must have a second factor: set it up in a browser, at /account/security.")
    return ApiError("second_factor_setup_required", text, 403)


def caller_in(request: Request) -> Caller:
    """Within which bounds the logged-in caller of this request acts."""
    if isinstance(request.auth, KeyAuth):
        return callers.caller_of_key(request.auth.key)
    return callers.caller_of(cast(User, request.user))


def _needed_scope(request: Request) -> str:
    method = "GET" if request.method == "HEAD" else request.method
    scopes: dict[str, str] = getattr(request.parser_context["view"], "key_scopes", {})
    return scopes.get(method or "", Scope.ADMIN)


def _denied(message: str) -> ApiError:
    return ApiError("permission_denied", message, 403)


def _refuse_another_cookie(request: Request, user: User) -> None:
    browser = getattr(request._request, "user", None)
    if browser is not None and browser.is_authenticated and browser.pk != user.pk:
        raise AuthenticationFailed
