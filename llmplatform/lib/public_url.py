"""``PUBLIC_URL``: under which address people reach this service when it is not its own, as behind a reverse proxy."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from llmplatform.lib.configuration import ConfigurationError
from llmplatform.lib.early_messages import translate as _

HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\]")
DEFAULT_PORTS = {"http": 80, "https": 443}


def parse(text: str) -> str:
    """As browsers write an origin: no path, no usual port. Raises ConfigurationError for anything that is more than that."""
    if not text:
        return ""
    try:
        parts = urlsplit(text.lower())
        host, port = host_of(text.lower()), parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in DEFAULT_PORTS or not HOST.fullmatch(host) or not bare:
        raise ConfigurationError(
            _("PUBLIC_URL=%(value)s: must be an address without a path, such as https://llm.example.com")
            % {"value": text}
        )
    return origin(parts.scheme, host, port)


def origin(scheme: str, host: str, port: int | None) -> str:
    return f"{scheme}://{host}" if port in {None, DEFAULT_PORTS[scheme]} else f"{scheme}://{host}:{port}"


def host_of(url: str) -> str:
    """The host as ``ALLOWED_HOSTS`` has it: IPv6 in brackets."""
    host = urlsplit(url).hostname or ""
    return f"[{host}]" if ":" in host else host
