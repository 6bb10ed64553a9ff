"""The stand-in's HTTP/1.1: reading requests, writing answers and streams of events."""

from __future__ import annotations

import asyncio
import json

from broken import NOISE
from journal import Attempt, Silent

KEEP_ALIVE_SECONDS = 5
KEEP_ALIVE_REQUESTS = 100
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 500: "Internal Server Error"}


class Aborted(Exception):
    """The connection is to be dropped without another word."""


class Request:
    def __init__(self, method: str, path: str, headers: dict, body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.data: dict = {}
        self.attempt: Attempt = Silent()


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, target, _version = lines[0].split(" ", 2)
    headers = {}
    for line in lines[1:]:
        name, _colon, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await read_body(reader, headers)
    return Request(method, target.partition("?")[0], headers, body)


async def read_body(reader: asyncio.StreamReader, headers: dict) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length") or 0))
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readline()
    return b"".join(parts)


class Answer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, close: bool) -> None:
        self.reader, self.writer, self.close = reader, writer, close
        self.trickles = False

    async def write(self, data: bytes) -> None:
        if self.trickles:
            for byte in data:
                self.check()
                self.writer.write(bytes([byte]))
                await asyncio.sleep(0)
        else:
            self.writer.write(data)
        await self.writer.drain()

    def check(self) -> None:
        if self.reader.at_eof() or self.writer.transport.is_closing():
            raise Aborted

    def head(self, status: int, content_type: str, rest: str) -> bytes:
        connection = (
            "Connection: close"
            if self.close
            else f"Keep-Alive: timeout={KEEP_ALIVE_SECONDS}, max={KEEP_ALIVE_REQUESTS}"
        )
        reason = REASONS.get(status, "Status")
        return (
            f"HTTP/1.1 {status} {reason}\r\nServer: llama.cpp\r\nContent-Type: {content_type}\r\n{rest}\r\n{connection}\r\n\r\n"
        ).encode()

    async def send(self, status: int, body: bytes, content_type: str = "application/json; charset=utf-8") -> None:
        self.close = self.close or status >= 400
        await self.write(self.head(status, content_type, f"Content-Length: {len(body)}") + body)

    async def json(self, data: dict, status: int = 200) -> None:
        await self.send(status, json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode())

    async def error(self, status: int, message: str, kind: str) -> None:
        await self.json({"error": {"message": message, "type": kind, "code": status}}, status)

    async def begin_stream(self) -> None:
        await self.write(self.head(200, "text/event-stream", "X-Accel-Buffering: no\r\nTransfer-Encoding: chunked"))

    async def events(self, events: list[dict], last: bool = False, done: bool = True) -> None:
        out = []
        for event in events:
            name = b"event: %s\n" % event["type"].encode() if "type" in event else b""
            data = name + b"data: " + json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"
            out.append(b"%x\r\n%s\r\n" % (len(data), data))
        if last and done:
            out.append(b"e\r\ndata: [DONE]\n\n\r\n")
        if last:
            out.append(b"0\r\n\r\n")
        self.check()
        await self.write(b"".join(out))

    async def half_an_event(self) -> None:
        data = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"cont'
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def garbage(self) -> None:
        data = NOISE + b'data: {garbage\n\ndata: []\n\ndata: {"choices":7}\n\n'
        await self.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))

    async def ping(self) -> None:
        self.check()
        await self.write(b"3\r\n:\n\n\r\n")
