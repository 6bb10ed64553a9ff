"""A process of the race test: several threads that hold, settle, settle again and release on the same wallets.

``python -m accounts.tests.race_worker`` with LLM_HOME and DATABASE_URL in the environment. Each line it reads is a command with
its arguments as a JSON list; each gets one line of JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402

from accounts import quota, services  # noqa: E402
from accounts.ledger_checks import ledger_problems  # noqa: E402
from accounts.models import Hold, LedgerEntry, UsageRecord, User, Wallet  # noqa: E402
from accounts.quota import Held, HoldRequest, Settlement, UsageFigures  # noqa: E402

THREADS = 4


def make_wallets(count: int, tokens: int) -> list[int]:
    made = []
    for number in range(count):
        wallet = services.create_user(f"racer{number}-{User.objects.count()}", "jh8&laks-d1").wallet
        quota.adjust(wallet, -wallet.available)
        made.append(quota.top_up(wallet, tokens * 1000).pk)
    return made


def grab(wallet_id: int, name: str, times: int) -> int:
    """Everybody wants one token, nobody gives back: how many got one."""

    def one(thread: int) -> int:
        try:
            ids = [f"{name}-{thread}-{number}" for number in range(times)]
            results = [quota.hold_many([HoldRequest(r, wallet_id, "m", 0, 1)])[0] for r in ids]
            return sum(isinstance(result, Held) for result in results)
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(one, range(THREADS)))


def mix(wallet_ids: list[int], name: str, times: int) -> list[int]:
    """Batches of holds over all wallets in random order; then each is settled, settled twice, released or left open.

    Answers how many were settled and their tokens.
    """
    barrier = threading.Barrier(THREADS)

    def one(thread: int) -> tuple[int, int]:
        chance = random.Random(f"{name}-{thread}")
        barrier.wait()
        settled = tokens = 0
        try:
            for turn in range(times):
                ids = [f"{name}-{thread}-{turn}-{number}" for number in range(8)]
                owner = {request_id: chance.choice(wallet_ids) for request_id in ids}
                held = quota.hold_many([HoldRequest(r, owner[r], "m", 3, 5) for r in ids])
                most = {result.request_id: result.max_tokens for result in held if isinstance(result, Held)}
                got = list(most)
                chance.shuffle(got)
                done = got[: len(got) // 2]
                quota.settle_many([settlement(r, owner[r], most[r]) for r in done])
                quota.settle_many([settlement(r, owner[r], 1) for r in done[::2]])
                quota.release_many(got[len(got) // 2 : -1])
                settled += len(done)
                tokens += sum(2 + most[r] for r in done)
        finally:
            connection.close()
        return settled, tokens

    with ThreadPoolExecutor(THREADS) as pool:
        return [sum(column) for column in zip(*pool.map(one, range(THREADS)), strict=True)]


def same_request(wallet_id: int, name: str, times: int) -> None:
    """All threads of all processes hold and settle the very same requests."""

    def one(_thread: int) -> None:
        try:
            for number in range(times):
                request_id = f"{name}-{number}"
                quota.hold_many([HoldRequest(request_id, wallet_id, "m", 3, 5)])
                quota.settle(settlement(request_id, wallet_id))
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(THREADS)))


def settlement(request_id: str, wallet_id: int, answer: int = 4) -> Settlement:
    usage = UsageFigures(
        model_name="m",
        endpoint="chat.completions",
        status=200,
        outcome="completed",
        prompt_tokens=2,
        completion_tokens=answer,
    )
    return Settlement(request_id, wallet_id, usage)


def hold(wallet_id: int, name: str, count: int) -> None:
    quota.hold_many([HoldRequest(f"{name}-{number}", wallet_id, "m", 3, 5) for number in range(count)])


def state() -> dict[str, Any]:
    return {
        "problems": ledger_problems(),
        "holds": Hold.objects.count(),
        "settled": LedgerEntry.objects.filter(kind="settle").count(),
        "usage": UsageRecord.objects.count(),
        "wallets": {wallet.pk: [wallet.available, wallet.held] for wallet in Wallet.objects.all()},
    }


COMMANDS = {
    "migrate": partial(call_command, "migrate", verbosity=0),
    "make_wallets": make_wallets,
    "grab": grab,
    "mix": mix,
    "same_request": same_request,
    "hold": hold,
    "release_dead_holds": quota.release_dead_holds,
    "state": state,
}

if __name__ == "__main__":
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(COMMANDS[command](*arguments)) + "\n")
        sys.stdout.flush()
