"""``manage.py check --tag service``: wrong settings are sentences with hints."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks

from llmplatform.service.checks import TAG


@pytest.fixture
def found(settings):
    """The ids of the messages for these settings."""

    def check(**changes):
        settings.TLS_CERT = settings.TLS_KEY = ""
        settings.ALLOWED_HOSTS, settings.CLUSTER_ENGINE = ["localhost"], "local"
        for name, value in changes.items():
            setattr(settings, name, value)
        messages = run_checks(tags=[TAG])
        assert all(message.hint for message in messages)
        return [message.id for message in messages]

    return check


def test_usual_settings_are_fine(found):
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "id_"),
    [
        ({"TLS_KEY": "key.pem"}, "service.E001"),
        ({"ALLOWED_HOSTS": ["*"]}, "service.W001"),
        ({"CLUSTER_ENGINE": "ray"}, "service.W002"),
    ],
)
def test_each_mistake_is_named(found, changes, id_):
    assert found(**changes) == [id_]
