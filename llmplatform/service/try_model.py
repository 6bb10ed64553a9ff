"""Ask a running service for a short answer and measure how fast it comes."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from llmplatform.service import local_client

TIMEOUT = 600.0


class NoAnswer(Exception):
    """The service did not answer as hoped; the message is for the person who asked."""


@dataclass
class Measured:
    text: str = ""
    first_token: float = 0.0
    total: float = 0.0
    tokens: int = 0

    @property
    def tokens_per_second(self) -> float:
        writing = self.total - self.first_token
        return (self.tokens - 1) / writing if self.tokens > 1 and writing > 0 else 0.0


def models(token: str) -> list[str]:
    status, body = _call("GET", "/v1/models", token)
    if status != http.HTTPStatus.OK:
        raise NoAnswer(_message(status, body))
    return [str(model["id"]) for model in json.loads(body)["data"]]


def ask(model: str, question: str, token: str, max_tokens: int) -> Measured:
    """One streamed answer. Raises NoAnswer."""
    request = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    measured = Measured()
    started = time.monotonic()
    for event in _stream(request, token):
        if "error" in event:
            raise NoAnswer(str(event["error"].get("message", "")))
        piece = "".join(choice.get("delta", {}).get("content") or "" for choice in event.get("choices", []))
        if piece and not measured.text:
            measured.first_token = time.monotonic() - started
        measured.text += piece
        measured.tokens = (event.get("usage") or {}).get("completion_tokens") or measured.tokens
    measured.total = time.monotonic() - started
    return measured


def _stream(request: dict[str, Any], token: str) -> Iterator[dict[str, Any]]:
    connection = local_client.connect(TIMEOUT)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(request), _headers(token))
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise NoAnswer(_message(response.status, response.read()))
        for line in response:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield json.loads(data)
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(_("No answer from the service (%(error)s).") % {"error": error}) from error
    finally:
        connection.close()


def _call(method: str, path: str, token: str) -> tuple[int, bytes]:
    connection = local_client.connect(TIMEOUT)
    try:
        connection.request(method, path, headers=_headers(token))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(_("No answer from the service (%(error)s).") % {"error": error}) from error
    finally:
        connection.close()


def _headers(token: str) -> dict[str, str]:
    return {
        "Host": local_client.host_header(),
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Connection": "close",
    }


def _message(status: int, body: bytes) -> str:
    try:
        return f"{status}: {json.loads(body)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return _("The service answered with status %(status)d.") % {"status": status}
