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

from llmplatform.lib import networks, origins

TAG = "service"


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    checks: Sequence[Callable[[], list[CheckMessage]]] = (
        _certificate,
        _host_names,
        _cluster_engine,
        _single_sign_on,
        _cross_origin,
    )
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


def _single_sign_on() -> list[CheckMessage]:
    others = ("OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET", "OIDC_GROUPS_CLAIM", "OIDC_OPERATORS", "OIDC_ADMINS")
    if not settings.OIDC_ISSUER and not any(getattr(settings, name) for name in others):
        return []
    found: list[CheckMessage] = []
    if not settings.OIDC_ISSUER or not settings.OIDC_CLIENT_ID:
        text = _("Single sign-on needs OIDC_ISSUER and OIDC_CLIENT_ID.")
        found.append(Error(text, hint=_("Set both, or none."), id="service.E002"))
    elif not settings.OIDC_ISSUER.startswith("https://") and not networks.is_loopback(settings.OIDC_ISSUER):
        text = _("OIDC_ISSUER must be an https address: whoever can change its answers can log in as anybody.")
        found.append(Error(text, hint=_("http is for a provider on this machine."), id="service.E003"))
    if "openid" not in settings.OIDC_SCOPES.split():
        text = _("OIDC_SCOPES must contain openid.")
        found.append(Error(text, hint=_("Without it the provider says nothing of who logs in."), id="service.E004"))
    if (settings.OIDC_OPERATORS or settings.OIDC_ADMINS) and not settings.OIDC_GROUPS_CLAIM:
        text = _("OIDC_OPERATORS and OIDC_ADMINS need OIDC_GROUPS_CLAIM.")
        found.append(Error(text, hint=_("Name the claim that holds a person's groups."), id="service.E005"))
    return found


def _cross_origin() -> list[CheckMessage]:
    entries = settings.CORS_ALLOWED_ORIGINS
    if origins.ANY in entries and len(entries) > 1:
        text = _("CORS_ALLOWED_ORIGINS: “*” means every origin, so it stands alone.")
        return [Error(text, hint=_("Write “*”, or the origins without it."), id="service.E006")]
    wrong = [entry for entry in entries if entry != origins.ANY and not origins.is_origin(entry)]
    hint = _("Write them as browsers do, for example https://app.example.org,http://localhost:3000.")
    text = _("CORS_ALLOWED_ORIGINS: “%(entry)s” is not an origin.")
    return [Error(text % {"entry": entry}, hint=hint, id="service.E006") for entry in wrong]


def register_checks() -> None:
    register(check_settings, TAG)
