"""Logging in with a user name or an email address: the door for every form and for the API."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from accounts import attempts, services
from accounts.models import User


class UsernameOrEmailBackend(ModelBackend):
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        if not username or not password:
            return None
        try:
            return services.user_with_password(username, password, request.META["REMOTE_ADDR"] if request else "")
        except attempts.TooManyAttempts as error:
            raise PermissionDenied from error
        except services.LoginRefused:
            return None
