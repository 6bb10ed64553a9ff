"""Settings that contradict each other or name what is not there: Django system checks, each a sentence with a hint.

``manage.py check`` shows them all; a start shows them too, and errors end it. What can only be found out by trying (ports,
folders, the certificate) is in ``preflight``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.utils.translation import gettext as _

TAG = "service"


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    checks: Sequence[Callable[[], list[CheckMessage]]] = (_certificate, _host_names, _cluster_engine)
    return [message for check in checks for message in check()]


def _certificate() -> list[CheckMessage]:
    if settings.TLS_KEY and not settings.TLS_CERT:
        return [Error(_("TLS_KEY is set without TLS_CERT."), hint=_("Set both, or none."), id="service.E001")]
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
