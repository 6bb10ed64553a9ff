"""``manage.py check --tag service``: wrong settings are sentences with hints."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks

from llmplatform.service.checks import TAG


@pytest.fixture
def found(settings):
    """The ids of the messages for these settings."""

    def check(**changes):
        settings.SERVER_PORT, settings.LLAMA_CPP_PORT = 8080, 8081
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
        ({"LLAMA_CPP_PORT": 8080}, "service.E001"),
        ({"TLS_KEY": "key.pem"}, "service.E002"),
        ({"TLS_CERT": "/no/such/file.pem"}, "service.E003"),
        ({"ALLOWED_HOSTS": ["*"]}, "service.W001"),
        ({"CLUSTER_ENGINE": "ray"}, "service.W002"),
    ],
)
def test_each_mistake_is_named(found, changes, id_):
    assert found(**changes) == [id_]


def test_a_file_that_is_no_certificate(found, tmp_path):
    (tmp_path / "cert.pem").write_text("nonsense")
    assert found(TLS_CERT=str(tmp_path / "cert.pem")) == ["service.E003"]
