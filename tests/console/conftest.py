"""People of each role, and a service with something in it."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone, translation

from accounts import groups, keys, quota
from accounts.models import ApiKey, Group, UsageRecord, User
from cluster.models import Node
from models_app.models import ModelConfig, Replica
from models_app.tests.conftest import a_small_machine as a_small_machine

PASSWORD = "correct horse battery"
MODEL_FORM = {
    "name": "tiny", "file": "tiny.gguf", "description": "A small one", "active": "on", "replicas": "1", "slots": "2",
    "context_length": "", "threads": "", "gpu_layers": "0", "policy": "always", "max_tokens": "100", "temperature": "0.5",
    "top_p": "0.9", "repeat_penalty": "1.0", "cache_type": "f16", "prompt_cache": "256", "flash_attention": "auto",
    "speculative": "off", "lora": "[]", "numa": "off",
}  # fmt: skip


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


@pytest.fixture(autouse=True)
def _english_until_a_page_says_otherwise():
    """A page leaves its reader's language on, as a web process does; the next test must not meet it."""
    with translation.override("en"):
        yield


def person(username: str, **fields) -> User:
    user = User(**{"username": username, "email": f"{username}@example.com", **fields})
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


def once() -> str:
    """What a form carries that takes effect once."""
    return uuid.uuid4().hex


def in_dialog(client: Client, path: str, **data):
    """Fills in a dialog and sends it, as the console's pages do."""
    return client.post(path, {"_form_submitted": "on", "once": once(), **data}, headers={"HX-Request": "true"})


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


def make_key(user: User, name: str = "notebook", **rules) -> ApiKey:
    return keys.create_key(user, keys.NewKey(name=name, **rules))[0]


def make_group(name: str = "staff", *, service: bool = False, **fields) -> Group:
    group = groups.create_group({"name": name, **fields})
    if service:
        groups.service_account(group)
    return group


def make_settled_usage(count: int, user: User) -> None:
    """As the gateway leaves it: with ledger entries and the sums by the hour."""
    for number in range(count):
        at = timezone.now() - timedelta(days=number)
        figures = quota.UsageFigures(
            model_name="tiny", endpoint="chat.completions", status=200, outcome="completed", created_at=at,
            prompt_tokens=10, completion_tokens=5, first_token_ms=300,
        )  # fmt: skip
        quota.settle(quota.Settlement(f"settled-{number}", user.wallet.pk, figures))
