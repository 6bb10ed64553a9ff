"""Settings that contradict each other or name what is not there: Django system checks, each a sentence with a hint.

``manage.py check`` shows them all; a start shows them too, and errors end it.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.translation import gettext as _

TAG = "service"


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    checks: Sequence[Callable[[], list[CheckMessage]]] = (_ports, _certificate, _host_names, _cluster_engine)
    return [message for check in checks for message in check()]


def _ports() -> list[CheckMessage]:
    if settings.SERVER_PORT != settings.LLAMA_CPP_PORT:
        return []
    text = _("SERVER_PORT and LLAMA_CPP_PORT are both %(port)d.") % {"port": settings.SERVER_PORT}
    return [Error(text, hint=_("Set one of them in .env to another port."), id="service.E001")]


def _certificate() -> list[CheckMessage]:
    if settings.TLS_KEY and not settings.TLS_CERT:
        return [Error(_("TLS_KEY is set without TLS_CERT."), hint=_("Set both, or none."), id="service.E002")]
    if not settings.TLS_CERT:
        return []
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.TLS_CERT, settings.TLS_KEY or settings.TLS_CERT)
    except (OSError, ssl.SSLError) as error:
        text = _("TLS_CERT and TLS_KEY cannot be used: %(error)s") % {"error": error}
        return [Error(text, hint=_("They name PEM files; the key must belong to the certificate."), id="service.E003")]
    return []


def _host_names() -> list[CheckMessage]:
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    text = _(
        "ALLOWED_HOSTS accepts every name, so a foreign page can reach this service through its visitors' browsers."
    )
    return [Warning(text, hint=_("List the names people really use."), id="service.W001")]


def _cluster_engine() -> list[CheckMessage]:
    if settings.CLUSTER_ENGINE == "local":
        return []
    text = _("CLUSTER_ENGINE=%(engine)s is not available in this version.") % {"engine": settings.CLUSTER_ENGINE}
    return [Warning(text, hint=_("Models run on this machine."), id="service.W002")]


def register_checks() -> None:
    register(check_settings, TAG)
