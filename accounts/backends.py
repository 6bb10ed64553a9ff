"""Logging in with a user name or an email address."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.db.models import Q
from django.http import HttpRequest

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
        # A user name wins over somebody else's email address that reads the same.
        found = list(User.objects.filter(Q(username__iexact=username) | Q(email__iexact=username))[:2])
        found.sort(key=lambda user: user.username.lower() != username.lower())
        if not found:
            User().set_password(password)  # the same time as for a name that exists
            return None
        user = found[0]
        return user if user.check_password(password) and self.user_can_authenticate(user) else None
