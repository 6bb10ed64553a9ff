"""How REST callers prove who they are: a bearer token, or the browser's session."""

from __future__ import annotations

from django.utils import translation
from rest_framework.authentication import SessionAuthentication as DrfSessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import Token

from accounts.callers import LONGEST_TOKEN, user_number
from accounts.models import User


class BearerAuthentication(JWTAuthentication):
    """JWT access tokens now; API keys join here."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        result: tuple[User, Token] | None = super().authenticate(request)
        if result and result[0].language and "HTTP_ACCEPT_LANGUAGE" not in request.META:
            # A program that states no language gets its user's; the middleware chooses anew at the next request.
            translation.activate(result[0].language)
        return result

    def get_user(self, validated_token: Token) -> User:
        try:
            user_number(validated_token.get(api_settings.USER_ID_CLAIM))
        except ValueError as error:  # else the database would be asked for it, and raise
            raise AuthenticationFailed from error
        user: User = super().get_user(validated_token)
        return user

    def get_raw_token(self, header: bytes) -> bytes | None:
        if len(header) > LONGEST_TOKEN:
            raise AuthenticationFailed
        token: bytes | None = super().get_raw_token(header)
        return token


class SessionAuthentication(DrfSessionAuthentication):
    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'
