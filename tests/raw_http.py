"""Requests as bytes, for what no HTTP library would send."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

from tests.running_service import Service


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    is_last: bool  # the connection ended after it

    def json(self) -> Any:
        return json.loads(self.body)


def exchange(service: Service, request: bytes, *, timeout: float = 30) -> Answer:
    """The first answer to what was sent, and whether the connection ended with it."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=timeout) as connection:
        connection.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = connection.recv(65536)
            assert chunk, f"no answer, only {received!r}"
            received += chunk
        head, _separator, body = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(body) < length:
            chunk = connection.recv(65536)
            assert chunk, f"{length} bytes announced, only {body!r}"
            body += chunk
        return Answer(int(status_line.split()[1]), headers, body[:length], _has_ended(connection, body[length:]))


def _has_ended(connection: socket.socket, more: bytes) -> bool:
    """A good connection is silent; the one that is closed says so."""
    connection.settimeout(5)
    try:
        while chunk := connection.recv(65536):
            more += chunk
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    assert not more, f"more than one answer: {more[:200]!r}"
    return True


def get(path: str, *headers: bytes) -> bytes:
    lines = [f"GET {path} HTTP/1.1".encode(), b"Host: localhost", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"
