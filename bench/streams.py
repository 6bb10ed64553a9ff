"""Many answers that stream at the pace of a model: how late each piece comes, and what a stream costs.

    python bench/streams.py [--streams 1000] [--rate 5] [--tokens 60] [--clients 32] [--server "ARGUMENTS TO PYTHON"]

One run measures the same streams straight from the upstream, through nginx (where installed) and through us (a real web server
with sign-in, limits, hold, queue, settlement, usage record). The upstream writes into each piece when it was sent, by the clock
that all processes of a machine share. Two tables: clients that ask one after the other for short answers at that pace, for the
time to the first byte; and so many streams at once, with memory and processor time of our web server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench import gateway
from bench.gateway import Way, process, through_nginx, through_us, wait_for
from tests.ports import free_port

GROUPS = 20  # into which the upstream divides its streams, so that it does not write to all at once
STAMP = re.compile(rb'"content":" (\d+)"')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
SHORT_ANSWER = 4  # tokens
PAUSE = 0.5  # seconds between two short answers of one client


# -- the upstream -----------------------------------------------------------------------------------------------------
def _event(delta: dict[str, str], **extra: object) -> bytes:
    finish = "stop" if extra else None
    told = {
        "choices": [{"finish_reason": finish, "index": 0, "delta": delta}],
        "id": "chatcmpl-1",
        "created": 1,
        "model": "bench",
    }
    data = b"data: " + json.dumps({**told, "object": "chat.completion.chunk", **extra}, separators=(",", ":")).encode()
    return b"%x\r\n%s\n\n\r\n" % (len(data) + 2, data)


class Upstream(asyncio.Protocol):
    """Every stream belongs to a group; each group gets a piece in its turn."""

    groups: list[list[Upstream]] = [[] for _ in range(GROUPS)]
    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer, self.left = transport, b"", 0

    def connection_lost(self, error: Exception | None) -> None:
        for group in self.groups:
            if self in group:
                group.remove(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(re.search(rb"content-length: *(\d+)", head.lower())[1])
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        asked = json.loads(rest[:length])
        self.left = self.tokens = asked.get("max_tokens", SHORT_ANSWER)
        if not asked.get("stream"):
            answer = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                + answer
            )
            return
        self.transport.write(HEAD + _event({"role": "assistant", "content": None}) + self.piece())
        Upstream.count += 1
        self.groups[Upstream.count % GROUPS].append(self)

    def piece(self) -> bytes:
        self.left -= 1
        return _event({"content": f" {time.monotonic_ns()}"})

    def tick(self) -> bool:
        """Whether more is to come."""
        if self.left > 0:
            self.transport.write(self.piece())
            return True
        timings = {
            "cache_n": 0,
            "prompt_n": 30,
            "predicted_n": self.tokens,
            "predicted_per_second": 5.0,
            "prompt_per_second": 100.0,
        }
        self.transport.write(_event({}, timings=timings) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        return False


async def upstream(port: int, rate: float) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=2048)
    step, at, number = 1 / rate / GROUPS, time.monotonic(), 0
    async with server:
        while True:
            at, number = at + step, (number + 1) % GROUPS
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            Upstream.groups[number][:] = [stream for stream in Upstream.groups[number] if stream.tick()]


# -- clients ----------------------------------------------------------------------------------------------------------
def message(way: Way, tokens: int) -> bytes:
    asked = {
        "model": gateway.MODEL,
        "messages": [{"role": "user", "content": "Is it so? " * 8}],
        "max_tokens": tokens,
        "stream": True,
    }
    text = json.dumps(asked).encode()
    head = f"POST {way.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {way.token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


class Client(asyncio.Protocol):
    """One stream at a time; how late its pieces were, in seconds."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self.first: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, asked: bytes) -> asyncio.Future[None]:
        self.began, self.first, self.tail = time.monotonic(), None, b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport.write(asked)
        return self.done

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first = now - self.began
        self.late += [now - int(stamp) / 1e9 for stamp in STAMP.findall(data)]
        self.tail = (self.tail + data)[-32:]
        if self.tail.endswith(b"0\r\n\r\n") and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"the connection was lost: {error}"))


async def connect(way: Way) -> Client:
    _transport, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", way.port)
    return client


@dataclass
class Figures:
    late: list[float]  # of each piece
    slowest: list[float]  # of each client, its latest piece
    memory: float = 0.0  # bytes a stream
    processor: float = 0.0  # microseconds a token


async def many(way: Way, options: argparse.Namespace, web: psutil.Process | None) -> Figures:
    clients = [await connect(way) for _ in range(options.streams)]
    before, asked = (web.memory_info().rss, sum(web.cpu_times()[:2])) if web else (0, 0.0), message(way, options.tokens)
    answers = [client.ask(asked) for client in clients]
    await asyncio.sleep(options.tokens / options.rate / 2)
    for client in clients:
        client.late.clear()  # of what came while all of them began at once
    memory = web.memory_info().rss if web else 0
    await asyncio.gather(*answers)
    spent = sum(web.cpu_times()[:2]) - before[1] if web else 0.0
    for client in clients:
        client.transport.close()
    late = [seconds for client in clients for seconds in client.late]
    slowest = [max(client.late) for client in clients if client.late]
    tokens = options.streams * options.tokens
    return Figures(late, slowest, (memory - before[0]) / options.streams, spent / tokens * 1e6)


async def first_bytes(way: Way, options: argparse.Namespace) -> list[float]:
    asked, times = message(way, SHORT_ANSWER), []

    async def one(number: int) -> None:
        client = await connect(way)
        await asyncio.sleep(PAUSE * number / options.clients)
        for _ in range(options.rounds):
            await client.ask(asked)
            times.append(client.first)
            await asyncio.sleep(PAUSE)
        client.transport.close()

    await asyncio.gather(*[one(number) for number in range(options.clients)])
    return times


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def milliseconds(values: list[float]) -> str:
    return "".join(
        f"{1000 * figure:>9.2f}" for figure in (statistics.median(values), percentile(values, 0.99), max(values))
    )


def tables(options: argparse.Namespace, folder: Path, port: int) -> None:
    roads = {"direct": contextlib.nullcontext(Way("direct", port))}
    if shutil.which("nginx"):
        roads["nginx"] = through_nginx(folder, port)
    roads["ours"] = through_us(folder, port, options.server)
    with contextlib.ExitStack() as stack:
        ways = [stack.enter_context(road) for road in roads.values()]
        for way in ways:
            wait_for(way, 120)
        firsts: dict[str, list[float]] = {way.name: [] for way in ways}
        for _ in range(2):
            for way in ways:
                firsts[way.name] += asyncio.run(first_bytes(way, options))
        print(f"time to the first byte, {options.clients} clients, ms    median      p99      max")
        for name, times in firsts.items():
            print(f"{name:<46}{milliseconds(times)}")
        added = [percentile(firsts["ours"], part) - percentile(firsts["direct"], part) for part in (0.5, 0.99)]
        print(f"added by us: median {1000 * added[0]:.2f} ms, 99th percentile {1000 * added[1]:.2f} ms\n")
        print(f"{options.streams} streams at {options.rate:g} tokens/s: a piece comes late by, ms")
        print(f"{'':<46}   median      p99      max   worst of a client   KB a stream   us a token")
        for way in ways:
            web = web_of(way.port) if way.name == "ours" else None
            seen = asyncio.run(many(way, options, web))
            cost = f"{seen.memory / 1024:>14.1f}{seen.processor:>13.1f}" if web else ""
            print(
                f"{way.name:<46}{milliseconds(seen.late)}{1000 * statistics.median(seen.slowest):>20.2f}{cost}",
                flush=True,
            )


def web_of(port: int) -> psutil.Process:
    """Who listens there."""
    return next(
        psutil.Process(c.pid)
        for c in psutil.net_connections("tcp")
        if c.laddr.port == port and c.status == "LISTEN" and c.pid
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=5.0, help="tokens a second, of each")
    parser.add_argument("--tokens", type=int, default=60, help="of each of the many streams")
    parser.add_argument("--clients", type=int, default=32, help="that ask for short answers")
    parser.add_argument("--rounds", type=int, default=10, help="short answers of each client, twice")
    parser.add_argument("--server", default="manage.py web", help="arguments to Python; {port} is filled in")
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(upstream(options.upstream, options.rate))
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = [sys.executable, __file__, "--upstream", str(port), "--rate", str(options.rate)]
        with process(command, folder / "upstream.log"):
            time.sleep(1)
            tables(options, folder, port)


if __name__ == "__main__":
    main()
