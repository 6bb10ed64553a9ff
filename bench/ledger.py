#!/usr/bin/env python3
"""What a request waits for before it is sent to a model: who asks, within which limits, and money set aside for it.

    python bench/ledger.py [--requests 2000] [--clients 1 32] [--database postgres://…] [--redis redis://…]

Each client asks in a loop with an API key that has limits, is measured from the key to the hold, hands in the settlement and asks
again at once: many of them measure how much the ledger can take. Then the same with answers that take ``--answer-ms``, as every
real one takes. Beside it stand the parts alone, and what handing in a settlement takes (it is written later, by another thread).
Every ledger is checked at the end.

SQLite by default, in a folder that is removed; ``--database``: an empty PostgreSQL database, too. Balances and first pages with
millions of entries: bench/usage.py (two ledger entries for each request).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WANTED = {1: 1.5, 32: 4.0}  # milliseconds, median, on SQLite
MONEY = 10**12
PROMPT, MOST, ANSWER = 200, 100, 60  # tokens
LIMITS = {"requests_per_minute": 2**31 - 1, "tokens_per_minute": 2**31 - 1, "concurrent_requests": 10_000}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="of all clients together")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--answer-ms", type=float, default=100.0, help="how long an answer takes")
    parser.add_argument("--database", default="", help="postgres://user:password@host/name of an empty database")
    parser.add_argument("--redis", default="", help="count the limits there")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    wanted = arguments()
    if wanted.measure:
        print(json.dumps(measured(wanted)))
        return
    for database in ("", wanted.database) if wanted.database else ("",):
        with tempfile.TemporaryDirectory() as folder:
            secret = "not-a-secret-" * 4
            Path(folder, ".env").write_text(f"JWT_SECRET={secret}\nSECRET_KEY={secret}\n", encoding="utf-8")
            environment = {**os.environ, "LLM_HOME": folder, "DATABASE_URL": database, "REDIS_URL": wanted.redis}
            subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
            command = [sys.executable, __file__, *sys.argv[1:], "--measure"]
            told = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            show("PostgreSQL" if database else "SQLite", json.loads(told.splitlines()[-1]))


def show(database: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{database:44}{'median':>10}{'p95':>10}{'p99':>10}{'wanted':>12}")
    for row in rows:
        limit = (
            WANTED.get(row["clients"])
            if not row["name"].startswith(("only", "handing")) and database == "SQLite"
            else None
        )
        wanted = f"≤ {limit} ms" if limit else ""
        name = f"{row['name']}, {row['clients']} client{'s' if row['clients'] > 1 else ''}"
        print(f"{name:44}" + "".join(f"{value:>7.2f} ms" for value in row["ms"]) + f"{wanted:>12}", flush=True)


# -- in the process that measures ----------------------------------------------------------------------------------------


def measured(wanted: argparse.Namespace) -> list[dict[str, Any]]:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
    import django

    django.setup()
    from accounts import keys, quota, services
    from accounts.ledger_checks import ledger_problems

    user = services.register_user("bench", "long-enough-for-a-bench", "bench@example.org", "")
    quota.top_up(quota.ensure_wallet(user), MONEY)
    _key, secret = keys.create_key(user, keys.NewKey(name="bench", **LIMITS))  # type: ignore[arg-type]
    rows = asyncio.run(_measure(secret, wanted.requests, wanted.clients, wanted.answer_ms / 1000))
    problems = list(ledger_problems())
    if problems:
        raise SystemExit(f"the ledger is wrong: {problems[:5]}")
    return rows


async def _measure(secret: str, requests: int, all_clients: list[int], answer: float) -> list[dict[str, Any]]:
    from accounts.callers import caller_from_bearer
    from accounts.models import UsageRecord
    from accounts.prices import Policy, default_price
    from accounts.quota import HoldRequest, Settlement, UsageFigures
    from gateway.billing import billing
    from gateway.places import Place

    policy = Policy(default_price(), None)
    settling: list[float] = []
    count = 0

    async def whole(pause: float = 0.0) -> float:
        nonlocal count
        count += 1
        name = f"bench-{count}"
        began = perf_counter()
        caller = await caller_from_bearer(secret, "127.0.0.1")
        place = await Place.take(caller, policy, name, PROMPT + MOST)
        await billing.hold(HoldRequest(name, caller.wallet_id, "bench", PROMPT, MOST, key_id=caller.key_id))
        took = perf_counter() - began
        if pause:
            await asyncio.sleep(pause)
        figures = UsageFigures(
            model_name="bench", endpoint="chat", status=200, outcome=UsageRecord.Outcome.COMPLETED,
            prompt_tokens=PROMPT, completion_tokens=ANSWER,
        )  # fmt: skip
        began = perf_counter()
        billing.settle(Settlement(name, caller.wallet_id, figures, caller.key_id))
        place.leave(PROMPT + ANSWER)
        settling.append(perf_counter() - began)
        return took

    async def key_and_limits() -> float:
        nonlocal count
        count += 1
        began = perf_counter()
        caller = await caller_from_bearer(secret, "127.0.0.1")
        place = await Place.take(caller, policy, f"bench-{count}", PROMPT + MOST)
        took = perf_counter() - began
        place.leave(0)
        return took

    rows = []
    for clients in all_clients:
        await _loops(whole, clients, min(requests, 200))  # warm
        settling.clear()
        ways = (
            ("key, limits and hold", whole),
            (f"the same, answers of {answer * 1000:.0f} ms", partial(whole, answer)),
            ("only the key and limits", key_and_limits),
        )
        for name, step in ways:
            rows.append(_row(name, clients, await _loops(step, clients, requests)))
        rows.append(_row("handing in the settlement", clients, settling))
        if not await asyncio.to_thread(billing.wait_until_idle, 60):
            raise SystemExit("settlements were not written within a minute")
    return rows


async def _loops(step: Callable[[], Awaitable[float]], clients: int, requests: int) -> list[float]:
    async def client() -> list[float]:
        return [await step() for _ in range(requests // clients)]

    return [took for times in await asyncio.gather(*[client() for _ in range(clients)]) for took in times]


def _row(name: str, clients: int, times: list[float]) -> dict[str, Any]:
    cuts = statistics.quantiles(times, n=100)
    return {
        "name": name,
        "clients": clients,
        "ms": [1000 * value for value in (statistics.median(times), cuts[94], cuts[98])],
    }


if __name__ == "__main__":
    main()
