"""People of each role, and a service with something in it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from accounts import quota
from accounts.models import UsageRecord, User
from cluster.models import Node
from models_app.models import ModelConfig, Replica

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _own_folders(settings, tmp_path: Path):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.MODELS_PATH = tmp_path / "models"
    settings.MODEL_CONFIG_PATH = settings.MODELS_PATH / "model_config.json"
    settings.RUN_DIR = tmp_path / "run"
    settings.LOG_DIR = tmp_path / "logs"
    settings.MODELS_PATH.mkdir()
    cache.clear()


def person(username: str, **fields) -> User:
    user = User(username=username, email=f"{username}@example.com", **fields)
    user.set_unusable_password()
    user.save()
    quota.open_wallet(user)
    return user


@pytest.fixture
def administrator(db) -> User:
    return person("ada", is_staff=True, is_superuser=True)


@pytest.fixture
def operator(db) -> User:
    return person("olga", is_staff=True)


@pytest.fixture
def user(db) -> User:
    return person("ben")


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def as_administrator(administrator: User) -> Client:
    return logged_in(administrator)


@pytest.fixture
def as_operator(operator: User) -> Client:
    return logged_in(operator)


@pytest.fixture
def machine(db) -> Node:
    figures = {"cpu": {"percent": 12.0}, "memory": {"total": 2**34, "percent": 50.0}, "load": [0.5, 0.4, 0.3]}
    return Node.objects.create(
        name="first", host="10.0.0.5", port=8080, role="master", last_seen=timezone.now(), system=figures
    )


def make_model(name: str, **fields) -> ModelConfig:
    return ModelConfig.objects.create(name=name, file=f"{name}.gguf", **fields)


def make_replica(model: ModelConfig, state: str, number: int = 1, reason: dict | None = None) -> Replica:
    return Replica.objects.create(
        model=model, number=number, node="first", state=state, since=timezone.now(), port=9000 + number, reason=reason
    )


def make_usage(count: int, user: User | None = None, **fields) -> None:
    now = timezone.now()
    before = UsageRecord.objects.count()
    values = {"model_name": "tiny", "endpoint": "chat.completions", "status": 200, "outcome": "completed"}
    values |= {"prompt_tokens": 10, "completion_tokens": 5, **fields}
    UsageRecord.objects.bulk_create(
        [
            UsageRecord(
                request_id=f"req-{before + number}",
                user=user,
                username=user.username if user else "",
                created_at=now - timedelta(seconds=number),
                **values,
            )
            for number in range(count)
        ],
        batch_size=1000,
    )
