"""HTTP to the web server of this folder, from this machine."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from llmplatform import settings
from llmplatform.service import addresses


def connect(timeout: float) -> http.client.HTTPConnection:
    host = addresses.local_host()
    if settings.TLS_CERT:
        # The certificate names the public host; here the peer is our own process on this machine.
        context = ssl._create_unverified_context()  # noqa: S323
        return http.client.HTTPSConnection(host, settings.SERVER_PORT, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, settings.SERVER_PORT, timeout=timeout)


def get_json(path: str, timeout: float = 5.0) -> tuple[int, dict[str, Any]]:
    """Status and body; status 0 when nobody answers."""
    connection = connect(timeout)
    try:
        connection.request("GET", path, headers={"Host": host_header(), "Connection": "close"})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"{}")
    except (OSError, http.client.HTTPException, ValueError):
        return 0, {}
    finally:
        connection.close()


def host_header() -> str:
    """A name of this machine: with SERVER_HOST=0.0.0.0 the connection goes to 127.0.0.1, whatever ALLOWED_HOSTS says."""
    allowed = settings.ALLOWED_HOSTS
    return addresses.local_host() if addresses.local_host() in allowed or not allowed else allowed[0].lstrip(".")
