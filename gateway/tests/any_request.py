"""Requests of every kind for test_gateway_machine.py: on bare connections, which may be left at any moment, and what must be
true of each answer.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "messages": "/v1/messages",
    "infill": "/v1/infill",
    "embeddings": "/v1/embeddings",
    "rerank": "/v1/rerank",
    "tokenize": "/v1/tokenize",
    "native": "/api/v1/models/{model}/chat",
}
STREAMING = {"chat", "completions", "messages", "infill", "native"}
SHAPES = {"native": {"code", "message", "details"}, "messages": {"type", "message"}}
WHOLE = {
    "chat": "choices",
    "completions": "choices",
    "messages": "content",
    "infill": "content",
    "embeddings": "data",
    "rerank": "results",
    "tokenize": "tokens",
    "native": "response",
}
STATUSES = {400, 404, 429, 502, 503}
RESET = struct.pack("ii", 1, 0)


@dataclass
class Asked:
    """``leaves``: "never", or when: "in the head", "in the body", "at once", "after bytes", "never reads"."""

    kind: str
    model: str
    token: str
    stream: bool
    words: int
    leaves: str
    after: int = 0
    abruptly: bool = False
    fields: dict = field(default_factory=dict)
    patience: float = 3.0
    found: str = ""  # what is wrong with the answer
    end: str = ""

    def begin(self, address: tuple[str, int]) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(address,), daemon=True)
        thread.start()
        return thread

    def __str__(self) -> str:
        how = f"{self.kind} of {self.model}, {'stream' if self.stream else 'whole'}, {self.words} words, {self.fields}"
        return f"{how}, leaves {self.leaves} {self.after} {self.abruptly}: {self.end} {self.found}"

    # -- asking ----------------------------------------------------------------------------------------------------------
    def _body(self) -> bytes:
        text = " ".join(f"word{number}" for number in range(self.words))
        given: dict = {
            "chat": {"messages": [{"role": "user", "content": text}]},
            "completions": {"prompt": text},
            "messages": {"messages": [{"role": "user", "content": text}], "max_tokens": 16},
            "infill": {"input_prefix": text, "input_suffix": "x"},
            "embeddings": {"input": [text, "x"]},
            "rerank": {"query": "x", "documents": [text, "y"]},
            "tokenize": {"content": text},
            "native": {"message": text},
        }[self.kind]
        if self.kind != "native":
            given["model"] = self.model
        if self.kind in STREAMING:
            given |= {"stream": self.stream, **self.fields}
        return json.dumps(given).encode()

    def _run(self, address: tuple[str, int]) -> None:
        try:
            with socket.socket() as wire:
                if self.leaves == "never reads":
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                wire.connect(address)
                self._exchange(wire)
                if self.abruptly and self.end == "left":
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        except OSError as error:
            self.end = self.end or "broken"
            self.found = f"the connection broke: {error!r}"

    def _exchange(self, wire: socket.socket) -> None:
        body, path = self._body(), PATHS[self.kind].format(model=self.model)
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.token}", "Connection: close"]
        sent = "\r\n".join([*lines, f"Content-Length: {len(body)}"]).encode() + b"\r\n\r\n" + body
        if self.leaves.startswith("in the "):
            end = (
                self.after % (len(sent) - len(body))
                if self.leaves == "in the head"
                else len(sent) - 1 - self.after % len(body)
            )
            wire.sendall(sent[:end])
            self.end = "left"
            return
        wire.sendall(sent)
        self.end = "left"
        if self.leaves == "at once":
            return
        if self.leaves == "never reads":
            threading.Event().wait(self.patience)
            return
        self._read(wire)

    def _read(self, wire: socket.socket) -> None:
        """Until the server closes, as it is asked to."""
        received, end = b"", time.monotonic() + self.patience
        while (left := end - time.monotonic()) > 0:
            wire.settimeout(left)
            try:
                part = wire.recv(65536)
            except TimeoutError:
                return
            received += part
            if not part:
                self.found = self._fault(received)
                return
            if self.leaves == "after bytes" and len(received) > self.after:
                return

    # -- the answer ------------------------------------------------------------------------------------------------------
    def _fault(self, received: bytes) -> str:
        head, separator, body = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1.1 (\d{3}) .*", status_line)
        if not separator or not found:
            self.end = "no answer"
            return f"{received[:200]!r}"
        headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
        status = int(found[1])
        self.end = f"answered {status}{' as a stream' * ('event-stream' in headers.get('content-type', ''))}"
        if headers.get("transfer-encoding") == "chunked":
            whole, body = _unchunked(body)
        else:
            whole = len(body) == int(headers.get("content-length", -1))
        if not whole:
            return f"half an answer, {status}: {body[-300:]!r}"
        try:
            return self._fault_in(status, headers, body)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            return f"{status}, {error!r}: {body[-500:]!r}"

    def _fault_in(self, status: int, headers: dict[str, str], body: bytes) -> str:
        if not headers.get("x-request-id"):
            return "no request id"
        if status == 200 and headers["content-type"].startswith("text/event-stream"):
            # Where an answer cannot go on elsewhere, its bytes pass as they come.
            return self._fault_in_stream(body.decode("utf-8", "replace"))
        told = json.loads(body)
        if status == 200:
            right = not self.stream_wished and all(WHOLE[self.kind] in answer for answer in self._answers_in(told))
            return "" if right else f"not what was asked for: {body[:300]!r}"
        self.end += f" {told['error'].get('code') or told['error']['type']}"
        if status not in STATUSES:
            return f"status {status}: {body[:300]!r}"
        return self._fault_in_error(told)

    def _answers_in(self, told: object) -> list:
        """llama-server's own form has no place for several answers: they come as a list."""
        count = self.fields.get("n", 1)
        if self.kind != "infill" or count == 1:
            return [told]
        if not isinstance(told, list) or len(told) != count:
            raise ValueError(f"not {count} answers")
        return told

    @property
    def stream_wished(self) -> bool:
        return self.stream and self.kind in STREAMING

    def _fault_in_error(self, told: dict) -> str:
        shape = SHAPES.get(self.kind, {"message", "type", "param", "code"})
        right = set(told["error"]) == shape and bool(told["error"]["message"])
        return "" if right else f"not an error of this protocol: {told}"

    def _fault_in_stream(self, text: str) -> str:
        if "garbage" in text:
            return f"garbage: {text[-1000:]!r}"
        *before, last, empty = text.split("\n\n")
        if empty or not self.stream_wished:
            return f"it does not end with an event: {text[-300:]!r}"
        for event in before:
            if (data := event.partition("data: ")[2]) and data != "[DONE]" and "error" in json.loads(data):
                return f"an error in the middle: {event!r}"
        name, data = "", ""
        for line in last.splitlines():
            name = line[7:] if line.startswith("event: ") else name
            data = line[6:] if line.startswith("data: ") else data
        if data == "[DONE]":
            return "" if self.kind in {"chat", "completions"} else f"a strange end: {text[-300:]!r}"
        told = json.loads(data)
        if "error" in told:
            self.end += " with an error event"
            named = (name == "error") == (self.kind in {"messages", "native"})
            return self._fault_in_error(told) if named else f"not an error event of this protocol: {last!r}"
        ends = {"native": ("done", True), "infill": ("stop", True)}
        field, value = ends.get(self.kind, ("type", "message_stop"))
        ended = told.get(field) == value
        return "" if ended else f"it has no end: {text[-300:]!r}"


def _unchunked(body: bytes) -> tuple[bool, bytes]:
    """Whether it came to its end, and what is in it."""
    parts = []
    while True:
        size, separator, body = body.partition(b"\r\n")
        if not separator:
            return False, b"".join(parts)
        length = int(size, 16)
        if not length:
            return body == b"\r\n", b"".join(parts)
        if len(body) < length + 2:
            return False, b"".join(parts)
        parts.append(body[:length])
        body = body[length + 2 :]
