"""``manage.py check --tag service``: wrong settings are sentences with hints."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks

from llmplatform.service.checks import TAG

PROVIDER = {"OIDC_ISSUER": "https://sso.example.org", "OIDC_CLIENT_ID": "llm"}


@pytest.fixture
def found(settings):
    """The ids of the messages for these settings."""

    def check(**changes):
        settings.TLS_CERT = settings.TLS_KEY = ""
        settings.ALLOWED_HOSTS, settings.CLUSTER_ENGINE = ["localhost"], "local"
        settings.OIDC_ISSUER = settings.OIDC_CLIENT_ID = settings.OIDC_CLIENT_SECRET = settings.OIDC_GROUPS_CLAIM = ""
        settings.CORS_ALLOWED_ORIGINS = []
        settings.OIDC_OPERATORS, settings.OIDC_ADMINS, settings.OIDC_SCOPES = [], [], "openid profile"
        for name, value in changes.items():
            setattr(settings, name, value)
        messages = run_checks(tags=[TAG])
        assert all(message.hint for message in messages)
        return [message.id for message in messages]

    return check


def test_usual_settings_are_fine(found):
    assert found() == []
    assert found(CORS_ALLOWED_ORIGINS=["*"]) == []
    origins = ["https://app.example.org", "http://localhost:3000", "http://[::1]:8080", "app://obsidian.md"]
    assert found(CORS_ALLOWED_ORIGINS=origins) == []
    assert found(**PROVIDER, OIDC_GROUPS_CLAIM="groups", OIDC_OPERATORS=["gpu-team"]) == []
    assert found(OIDC_ISSUER="http://127.0.0.1:9000", OIDC_CLIENT_ID="llm") == []


@pytest.mark.parametrize(
    ("changes", "id_"),
    [
        ({"TLS_KEY": "key.pem"}, "service.E001"),
        ({"ALLOWED_HOSTS": ["*"]}, "service.W001"),
        ({"CLUSTER_ENGINE": "ray"}, "service.W002"),
        ({"OIDC_ISSUER": "https://sso.example.org"}, "service.E002"),
        ({"OIDC_CLIENT_SECRET": "x"}, "service.E002"),
        ({"OIDC_ISSUER": "http://sso.example.org", "OIDC_CLIENT_ID": "llm"}, "service.E003"),
        ({"OIDC_ISSUER": "sso.example.org", "OIDC_CLIENT_ID": "llm"}, "service.E003"),
        ({**PROVIDER, "OIDC_SCOPES": "profile email"}, "service.E004"),
        ({**PROVIDER, "OIDC_ADMINS": ["root"]}, "service.E005"),
        ({"CORS_ALLOWED_ORIGINS": ["*", "https://app.example.org"]}, "service.E006"),
        ({"CORS_ALLOWED_ORIGINS": ["app.example.org"]}, "service.E006"),
        ({"CORS_ALLOWED_ORIGINS": ["https://app.example.org/"]}, "service.E006"),
        ({"CORS_ALLOWED_ORIGINS": ["https://app.example.org/page"]}, "service.E006"),
        ({"CORS_ALLOWED_ORIGINS": ["https://App.example.org"]}, "service.E006"),
        ({"CORS_ALLOWED_ORIGINS": ["https://*.example.org"]}, "service.E006"),
        ({"CORS_ALLOWED_ORIGINS": ["https://app.example.org:443"]}, "service.E006"),
        ({"CORS_ALLOWED_ORIGINS": ["null"]}, "service.E006"),
    ],
)
def test_each_mistake_is_named(found, changes, id_):
    assert found(**changes) == [id_]
