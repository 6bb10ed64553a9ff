#!/usr/bin/env python3
"""Several web processes in front of the same replicas: what it costs to hear only now and then which slots the others have.

    python bench/shared_slots.py [--replicas 4] [--slots 4] [--seconds 30]

The same clients, divided among the web processes, ask for streamed answers of one to three seconds, one after the other: fewer of
them than there are slots, as many, and twice as many. Once with one web process, which knows all; once with two that share by
Redis; once with two that do not. The engines are stand-ins, which note how long each request waited for a slot in them.

Printed: requests that had to wait in an engine while another one may have had a free slot, and how long; time to the first token;
answers a second, by those of one web process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gateway.tests.conftest import SETUP, StandIn, python_in, web  # noqa: E402 - its path is known only now
from tests.ports import free_port  # noqa: E402
from tests.redis_server import running_redis  # noqa: E402
from tests.running_service import put_prepared_files  # noqa: E402

MODEL, TOKEN_SECONDS = "m", 0.05
SHORTEST, LONGEST = 20, 60  # tokens
NOTICED = 0.02  # seconds of waiting in an engine that count
WARM_UP = 3.0  # seconds


@dataclass
class Seen:
    first: list[float] = field(default_factory=list)
    answers: int = 0


async def client(url: str, token: str, chance: random.Random, end: float, seen: Seen) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=120) as http:
        while time.monotonic() < end:
            body = {
                "model": MODEL, "messages": [{"role": "user", "content": f"{chance.random()} is it so?"}], "stream": True,
                "max_tokens": chance.randint(SHORTEST, LONGEST),
            }  # fmt: skip
            began, first = time.monotonic(), 0.0
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    first = first or ("word" in line and time.monotonic() - began)
            seen.first.append(first)
            seen.answers += time.monotonic() < end


async def load(urls: Sequence[str], token: str, clients: int, seconds: float) -> Seen:
    seen, end = Seen(), time.monotonic() + seconds
    asking = [client(urls[number % len(urls)], token, random.Random(number), end, seen) for number in range(clients)]
    await asyncio.gather(*asking)
    return seen


@contextlib.contextmanager
def engines(count: int, slots: int) -> Iterator[list[StandIn]]:
    with contextlib.ExitStack() as stack:
        made = [StandIn(free_port(), slots) for _ in range(count)]
        for engine in made:
            stack.callback(engine.start().stop)
            engine.tell(token_seconds=TOKEN_SECONDS, chunks=LONGEST)
        yield made


def waits(replicas: Sequence[StandIn], since: float) -> list[float]:
    """Seconds, of each request since then."""
    return [entry.get("waited", 0.0) for replica in replicas for entry in replica.seen() if entry["time"] >= since]


def row(name: str, seen: Seen, waited: Sequence[float], usual: float, seconds: float) -> float:
    had_to = [one for one in waited if one > NOTICED]
    ordered, speed = sorted(seen.first), seen.answers / seconds
    p95 = ordered[int(0.95 * len(ordered))]
    print(
        f"| {name} | {len(waited)} | {len(had_to) / len(waited):.1%} | {statistics.mean(had_to or [0]):.2f} | "
        f"{statistics.median(ordered):.2f} | {p95:.2f} | {speed:.2f} | {speed / (usual or speed):.2f} |",
        flush=True,
    )
    return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        home, redis = Path(name), stack.enter_context(running_redis())
        replicas = stack.enter_context(engines(wanted.replicas, wanted.slots))
        secrets = "".join(f"{setting}={os.urandom(32).hex()}\n" for setting in ("JWT_SECRET", "SECRET_KEY"))
        (home / ".env").write_text(f"{secrets}ALLOWED_HOSTS=127.0.0.1\nSERVER_HOST=127.0.0.1\n")
        put_prepared_files(home)
        rows = [{"port": engine.port, "slots": wanted.slots, "state": "ready"} for engine in replicas]
        given = {"users": {"ann": 10**12}, "models": {MODEL: rows}}
        token = json.loads(python_in(home, "-c", SETUP, json.dumps(given)))["ann"]
        ways = {
            "one web process": [{}],
            "two, with Redis": [{"REDIS_URL": redis.url}] * 2,
            "two, without": [{}] * 2,
        }
        urls = {
            way: [stack.enter_context(web(home, f"{way}-{n}", **more)).url for n, more in enumerate(settings)]
            for way, settings in ways.items()
        }
        slots = wanted.replicas * wanted.slots
        for share in (0.75, 1.0, 2.0):
            clients = round(share * slots)
            print(f"\n{clients} clients, {slots} slots\n\n| | requests | waited in an engine | s | first token, s: median | "
                  "p95 | answers/s | by one |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
            usual = 0.0
            for way, servers in urls.items():
                asyncio.run(load(servers, token, clients, WARM_UP))
                since = time.time()
                seen = asyncio.run(load(servers, token, clients, wanted.seconds))
                speed = row(way, seen, waits(replicas, since), usual, wanted.seconds)
                usual = usual or speed


if __name__ == "__main__":
    main()
