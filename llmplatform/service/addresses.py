"""Under which addresses this service is reached, as settings have it."""

from __future__ import annotations

from llmplatform import settings
from llmplatform.lib.host_names import own_addresses

EVERY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104 - compared with, not bound


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def local_host() -> str:
    """The address this machine itself uses to reach the web server."""
    if settings.SERVER_HOST in EVERY_ADDRESS:
        return "::1" if settings.SERVER_HOST == "::" else "127.0.0.1"
    return str(settings.SERVER_HOST)


def local_url() -> str:
    host = "localhost" if settings.SERVER_HOST in {*EVERY_ADDRESS, "127.0.0.1"} else _in_url(settings.SERVER_HOST)
    return f"{_scheme()}://{host}:{settings.SERVER_PORT}"


def network_urls() -> list[str]:
    """For other machines; empty when only this machine may call."""
    if settings.SERVER_HOST not in EVERY_ADDRESS:
        return []
    return [f"{_scheme()}://{_in_url(address)}:{settings.SERVER_PORT}" for address in own_addresses()]


def _scheme() -> str:
    return "https" if settings.TLS_CERT else "http"
