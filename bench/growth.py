"""Whether the web server grows with the requests it has answered.

    python bench/growth.py [--warm 40000] [--requests 200000] [--clients 16] [--server "ARGUMENTS TO PYTHON"]

Conversations of several turns, each unlike all others, half of them streamed, to an upstream that answers at once. The warm-up
fills what has a bound (the memory of prompts, caches of names, the allocator's arenas). Printed is the resident memory after it,
after each tenth of the rest, and the ratio of the last to the first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench import gateway
from bench.gateway import ROOT, Way, process, through_us, wait_for
from bench.streams import web_of
from tests.ports import free_port


def asked(way: Way, chance: random.Random) -> bytes:
    turns = [
        {"role": ("user", "assistant")[turn % 2], "content": f"{chance.getrandbits(64):x} " * 8} for turn in range(5)
    ]
    text = json.dumps(
        {"model": gateway.MODEL, "messages": turns, "max_tokens": 64, "stream": chance.random() < 0.5}
    ).encode()
    head = f"POST {way.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {way.token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text


async def ask(way: Way, count: int, clients: int, chance: random.Random) -> None:
    left = count

    async def client() -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port, limit=2**20)
        while left > 0:
            left -= 1
            writer.write(asked(way, chance))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in head[:20]:
                raise SystemExit(f"not answered: {head.decode()}")
            if b"chunked" in head:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        writer.close()

    await asyncio.gather(*[client() for _ in range(clients)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warm", type=int, default=40_000)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--server", default="manage.py web", help="arguments to Python; {port} is filled in")
    options = parser.parse_args()
    upstream, chance = free_port(), random.Random(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = [sys.executable, str(ROOT / "bench" / "upstream.py"), str(upstream)]
        with process(command, folder / "upstream.log"), through_us(folder, upstream, options.server) as way:
            wait_for(way, 120)
            web, sizes = web_of(way.port), []
            for part in range(11):
                began = time.monotonic()
                count = options.requests // 10 if part else options.warm
                asyncio.run(ask(way, count, options.clients, chance))
                sizes.append(web.memory_info().rss / 2**20)
                rate = count / (time.monotonic() - began)
                title = f"{part * options.requests // 10:,} requests" if part else "after the warm-up"
                print(f"{title:<20}{sizes[-1]:>8.1f} MB{rate:>8.0f} requests/s", flush=True)
            print(f"last / first: {sizes[-1] / sizes[0]:.3f}")


if __name__ == "__main__":
    main()
