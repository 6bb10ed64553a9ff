"""How REST callers prove who they are: a bearer token, or the browser's session."""

from __future__ import annotations

from rest_framework.authentication import SessionAuthentication as DrfSessionAuthentication
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication


class BearerAuthentication(JWTAuthentication):
    """JWT access tokens now; API keys join here."""


class SessionAuthentication(DrfSessionAuthentication):
    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'
