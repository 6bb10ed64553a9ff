"""Whether a websocket may be opened from where its page came from: cookies go along whatever page opens it."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host

DEFAULT_PORTS = {"http": "80", "https": "443"}


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def host_is_ours(host: str) -> bool:
    """A page elsewhere, whose DNS name is made to point at us, carries its own name in ``Host``."""
    domain, _port = split_domain_port(host)
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def is_same_site(origin: str, host: str) -> bool:
    """Whether ``Origin`` names the very host and port the request went to, or one the administrator trusts."""
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    try:
        parts = urlsplit(origin)
        port = str(parts.port or DEFAULT_PORTS.get(parts.scheme, ""))
    except ValueError:
        return False
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        return False
    domain, host_port = split_domain_port(host)
    return parts.hostname == domain.strip("[]") and port == (host_port or DEFAULT_PORTS[parts.scheme])
