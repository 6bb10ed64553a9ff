#!/usr/bin/env python3
"""Whether replicas are faster when each has cores of its own: tokens per second with the engines' threads bound to cores and
without, side by side.

    python bench/placement.py MODEL.gguf [--rounds N]

The same engines all the time; only where they may run changes from one measurement to the next, so that a machine that changes
its speed does so for all. ``alone``: the other replica is idle; ``both``: both answer; ``+1 busy program``: beside a program that
wants a core as well, as other services of the machine do.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from engine_threads import BURN, ROOT, wait_until_healthy

from tests.ports import free_port

Where = dict[str, list[set[int]]]
PROMPT = "the quick brown fox " * 20


class Engine:
    def __init__(self, model: str, threads: int, key: str) -> None:
        port = free_port()
        self.address, self.key = f"http://127.0.0.1:{port}", key
        numbers = {
            "port": port,
            "ctx-size": 2048,
            "parallel": 1,
            "threads": threads,
            "threads-batch": threads,
            "cache-ram": 0,
        }
        argv = [sys.executable, "-m", "models_app.engine_main", "--model", model, "--alias", "bench"]
        argv += [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
        environment = {"GOMP_SPINCOUNT": "1000", **os.environ, "LLAMA_API_KEY": key}
        self.process = subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def bind(self, cpus: set[int]) -> None:
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cpus)

    def ask(self) -> float:
        """Seconds for a prompt of about 100 tokens and an answer of 32."""
        body = {
            "prompt": f"{secrets.token_hex(4)} {PROMPT}",
            "n_predict": 32,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.post(f"{self.address}/completion", json=body, headers=headers, timeout=600).raise_for_status()
        timings = answer.json()["timings"]
        return float(timings["prompt_ms"] + timings["predicted_ms"]) / 1000


@contextlib.contextmanager
def running(model: str, threads: list[int]) -> Iterator[list[Engine]]:
    engines = []
    try:
        engines.extend(Engine(model, number, secrets.token_hex(16)) for number in threads)
        for engine in engines:
            wait_until_healthy(engine.address, engine.process)
            engine.ask()
        yield engines
    finally:
        for engine in engines:
            engine.process.kill()
            engine.process.wait()


@contextlib.contextmanager
def busy_programs(count: int) -> Iterator[None]:
    programs = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def measure(title: str, engines: list[Engine], asked: int, where: Where, rounds: int) -> None:
    """``asked``: how many of the engines answer at once. Rounds in turns; the median of the slowest answer of each."""
    seen: dict[str, list[float]] = {name: [] for name in where}
    with ThreadPoolExecutor(asked) as pool:
        for turn in range(rounds):
            for name in list(where)[:: 1 if turn % 2 else -1]:
                for engine, cpus in zip(engines, where[name], strict=True):
                    engine.bind(cpus)
                seen[name].append(max(pool.map(Engine.ask, engines[:asked])))
    free = statistics.median(seen["free"])
    for name, seconds in seen.items():
        middle = statistics.median(seconds)
        print(f"{title:<40} {name:<10} {middle:6.3f} s  speed {free / middle:5.2f} of free", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=15)
    wanted = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    half, whole = len(cpus) // 2, set(cpus)
    first, second = set(cpus[:half]), set(cpus[half:])
    where = {"free": [whole, whole], "bound": [first, second]}
    for busy in (0, 1):
        beside = f", +{busy} busy program" if busy else ""
        with running(wanted.model, [half, half]) as engines, busy_programs(busy):
            measure(f"2 x {half} threads, alone{beside}", engines, 1, where, wanted.rounds)
            measure(f"2 x {half} threads, both{beside}", engines, 2, where, wanted.rounds)
        # The first one ran alone before the second came: it keeps the threads it has.
        squeezed = {**where, "one bound": [whole, second]}
        with running(wanted.model, [len(cpus), half]) as engines, busy_programs(busy):
            measure(f"{len(cpus)} + {half} threads, both{beside}", engines, 2, squeezed, wanted.rounds)


if __name__ == "__main__":
    main()
