"""HTTP to the web server of this folder, from this machine."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from llmplatform import settings
from llmplatform.service import addresses, run_folder


def connect(timeout: float) -> http.client.HTTPConnection:
    host, (scheme, port) = addresses.local_host(), _way_in()
    if scheme == "https":
        # The certificate names the public host; here the peer is our own process on this machine.
        context = ssl._create_unverified_context()  # noqa: S323
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    return http.client.HTTPConnection(host, port, timeout=timeout)


def _way_in() -> tuple[str, int]:
    """Of the service that runs: whoever asks may have another SERVER_PORT in the environment than who started it."""
    running = run_folder.read()
    address = urlsplit(running.address if running is not None else addresses.local_url())
    return address.scheme, address.port or int(settings.SERVER_PORT)


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
