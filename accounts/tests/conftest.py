from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from rest_framework.test import APIClient

from accounts import audit_log, callers, services
from accounts.models import User

PASSWORD = "jh8&laks-d1"
_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _fresh_process(settings: Any) -> Iterator[None]:
    """What a new process would not remember; and passwords that are quick to hash."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.TOKEN_PRICE = 1000
    settings.DEFAULT_TOKENS = 1000
    settings.REGISTRATION = "open"
    cache.clear()
    callers.forget_everything()
    audit_log.forget_failures()
    yield
    cache.clear()


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    def make(username: str = "", **fields: Any) -> User:
        user = services.create_user(username or f"user{next(_numbers)}", PASSWORD)
        for name, value in fields.items():
            setattr(user, name, value)
        user.save()
        return user

    return make


@pytest.fixture
def user(make_user: Callable[..., User]) -> User:
    return make_user("bob", email="bob@example.com")


@pytest.fixture
def operator(make_user: Callable[..., User]) -> User:
    return make_user("olga", is_staff=True)


@pytest.fixture
def admin(make_user: Callable[..., User]) -> User:
    return make_user("anna", is_staff=True, is_superuser=True)


@pytest.fixture
def client() -> APIClient:
    """A client that turns a server error into an answer, as a real server does, and checks CSRF as one does."""
    return APIClient(raise_request_exception=False, enforce_csrf_checks=True)


@pytest.fixture
def as_user(client: APIClient) -> Callable[[User], APIClient]:
    def log_in(user: User) -> APIClient:
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {services.token_pair(user).access}")
        return client

    return log_in
