"""A stand-in for llama-server that answers at once: a short JSON answer, or a stream of 64 events.

    python bench/upstream.py PORT

Bare asyncio, so that it is the slowest part of no measurement. Each event is a write of its own, as llama-server does it.
"""

from __future__ import annotations

import asyncio
import json
import sys

EVENTS = 64
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n"
TIMINGS = {
    "cache_n": 20,
    "prompt_n": 12,
    "predicted_n": EVENTS,
    "predicted_per_second": 1000.0,
    "prompt_per_second": 1e4,
}
COMMON = {"created": 1, "id": "chatcmpl-1", "model": "bench", "system_fingerprint": "b0"}


def _event(delta: dict[str, str], **extra: object) -> bytes:
    choice = {"finish_reason": None, "index": 0, "delta": delta}
    told = {"choices": [choice], **COMMON, "object": "chat.completion.chunk", **extra}
    data = b"data: " + json.dumps(told, separators=(",", ":")).encode()
    return b"%x\r\n%s\n\n\r\n" % (len(data) + 2, data)


def _short() -> bytes:
    usage = {"completion_tokens": 4, "prompt_tokens": 32, "total_tokens": 36}
    message = {"role": "assistant", "content": "It is so."}
    choices = [{"finish_reason": "stop", "index": 0, "message": message}]
    body = json.dumps({"choices": choices, **COMMON, "object": "chat.completion", "usage": usage}).encode()
    return HEAD % (b"application/json", b"Content-Length: %d\r\n" % len(body)) + body


SHORT = _short()
STREAM = [
    HEAD % (b"text/event-stream", b"Transfer-Encoding: chunked\r\n"),
    *[_event({"content": " token"}) for _ in range(EVENTS - 1)],
    _event({}, timings=TIMINGS),
    b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
]


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(body)

    def answer(self, body: bytes) -> None:
        if b'"stream":true' in body.replace(b" ", b""):
            for part in STREAM:
                self.transport.write(part)
        else:
            self.transport.write(SHORT)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
