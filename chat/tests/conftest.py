from __future__ import annotations

import pytest

from accounts.models import User


@pytest.fixture
def alice(db) -> User:
    return User.objects.create_user("alice", password="correct horse 1")


@pytest.fixture
def bob(db) -> User:
    return User.objects.create_user("bob", password="battery staple 2")
