"""Clients that do not keep up: they send their request or read their answer too slowly, or not at all.

A web server of its own gives them two seconds instead of a minute.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import psutil
import pytest

from gateway.tests.conftest import Service, until, web

pytestmark = pytest.mark.e2e

BODY = {"model": "alpha", "messages": [{"role": "user", "content": "Is it so?"}], "stream": True}
PRICE = 1000
SECONDS = 2  # that a client has


@dataclass
class Impatient:
    service: Service
    process: psutil.Process

    @property
    def memory(self) -> int:
        return self.process.memory_info().rss

    def has(self, wire: socket.socket) -> bool:
        """Whether the server has that connection too."""
        return any(one.raddr == wire.getsockname() for one in self.process.net_connections("tcp"))

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        url = httpx.URL(self.service.url)
        wire = socket.socket()
        if receive_buffer:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        wire.settimeout(60)
        wire.connect((url.host, url.port))
        return wire

    def request(self, body: dict, *headers: str) -> bytes:
        data = json.dumps(body).encode()
        lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: {httpx.URL(self.service.url).host}", *headers]
        lines += [f"Authorization: Bearer {self.service.tokens['ann']}", f"Content-Length: {len(data)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


@pytest.fixture(scope="module")
def server(running: Service) -> Iterator[Impatient]:
    with web(running.home, "impatient", CLIENT_TIMEOUT_SECONDS=str(SECONDS)) as started:
        yield Impatient(replace(running, url=started.url), psutil.Process(started.process.pid))


@pytest.fixture
def impatient(service: Service, server: Impatient) -> Iterator[Impatient]:
    yield server
    until(lambda: server.service.metric("llm_requests_under_way") == 0)
    assert server.service.metric("llm_slots_busy") == 0


# -- answers that nobody reads -------------------------------------------------------------------------------------------
def test_a_stream_that_nobody_reads_holds_the_engine_back_and_ends(impatient: Impatient) -> None:
    standin = impatient.service.standins["alpha"]
    standin.tell(chunks=60, word_bytes=1_000_000, token_seconds=0.001)
    asked, before, most = len(standin.seen()), impatient.memory, 0
    with impatient.connect(receive_buffer=4096) as wire:
        wire.sendall(impatient.request(BODY))
        until(lambda: len(standin.seen()) > asked)
        while standin.seen()[-1]["state"] != "closed":
            most = max(most, impatient.memory)
        head = wire.recv(4096).partition(b"\r\n\r\n")[0].decode()
    last = standin.seen()[-1]
    assert last["state"] == "closed"
    deltas = last["deltas"]
    assert deltas < 30  # what lies in the system's buffers between it and us, and in ours
    assert most - before < 20e6
    request_id = re.search(r"x-request-id: (\S+)", head, re.IGNORECASE)[1]
    record = impatient.service.usage(request_id)
    assert (record["outcome"], record["completion_tokens"] <= deltas) == ("cancelled", True)
    assert record["cost"] == (record["prompt_tokens"] + record["completion_tokens"]) * PRICE


@pytest.mark.parametrize("headers", [[], ["Connection: close"]])
def test_an_answer_in_one_piece_that_nobody_reads_does_not_stay(impatient: Impatient, headers: list[str]) -> None:
    impatient.service.standins["alpha"].tell(chunks=20, word_bytes=1_000_000)
    with impatient.connect(receive_buffer=4096) as wire:
        wire.sendall(impatient.request({**BODY, "stream": False}, *headers))
        until(lambda: impatient.has(wire))
        until(lambda: not impatient.has(wire))


def test_who_reads_slowly_gets_everything(impatient: Impatient) -> None:
    """It takes longer than a client has that does not read."""
    impatient.service.standins["alpha"].tell(chunks=60, word_bytes=20_000)
    received, began, due = b"", time.monotonic(), 0
    with impatient.connect(receive_buffer=4096) as wire:
        wire.sendall(impatient.request(BODY))
        while not received.endswith(b"0\r\n\r\n"):
            part = wire.recv(20_000)
            assert part, received[-500:]
            received += part
            if len(received) > due:
                due += 20_000
                time.sleep(0.05)
    assert b"data: [DONE]" in received
    assert received.count(b'"finish_reason":null') == 61
    assert time.monotonic() - began > SECONDS


# -- requests that do not end --------------------------------------------------------------------------------------------
TRICKLES = {
    "the head": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    "the body": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n",
    "a chunk": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
}


@pytest.mark.parametrize("begun", TRICKLES.values(), ids=list(TRICKLES))
def test_a_request_that_trickles_in_ends_with_its_connection(impatient: Impatient, begun: bytes) -> None:
    with impatient.connect() as wire:
        wire.sendall(begun)
        assert ends_before(wire, [b"x"] * 1000, pause=0.02)
    assert impatient.service.metric("llm_requests_under_way") == 0


def test_a_chunked_body_without_end_ends_with_its_connection(impatient: Impatient) -> None:
    with impatient.connect() as wire:
        wire.sendall(TRICKLES["a chunk"].partition(b"ffff")[0])
        assert ends_before(wire, [b"10000\r\n" + b" " * 65536 + b"\r\n"] * 1000)


def test_a_connection_without_a_request_ends(impatient: Impatient) -> None:
    with impatient.connect() as wire:
        assert wire.recv(1) == b""


def test_who_sends_slowly_is_answered(impatient: Impatient) -> None:
    """It takes longer than a client has that does not send; each time 64 KB are there, it has that long again."""
    request = impatient.request({**BODY, "stream": False, "metadata": {"long": "x" * 400_000}})
    began = time.monotonic()
    with impatient.connect() as wire:
        for begin in range(0, len(request), 10_000):
            wire.sendall(request[begin : begin + 10_000])
            time.sleep(0.06)
        assert wire.recv(12) == b"HTTP/1.1 200"
    assert time.monotonic() - began > SECONDS


def ends_before(wire: socket.socket, parts: list[bytes], pause: float = 0) -> bool:
    """Whether the server ends the connection before all of it is sent."""
    for part in parts:
        with contextlib.suppress(TimeoutError, BlockingIOError):
            wire.settimeout(pause or 0.001)
            try:
                if not wire.recv(65536):
                    return True
            except ConnectionError:
                return True
        wire.settimeout(30)
        try:
            wire.sendall(part)
        except ConnectionError:
            return True
    return False
