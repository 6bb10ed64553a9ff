"""A process of the race test: several threads that hold, settle, settle again and release on the same wallets.

``python -m accounts.tests.race_worker`` with LLM_HOME and DATABASE_URL in the environment. Each line it reads is a command with
its arguments as a JSON list; each gets one line of JSON.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, connection  # noqa: E402
from django.db.models import Sum  # noqa: E402
from django.utils import timezone  # noqa: E402
from hypothesis.stateful import run_state_machine_as_test  # noqa: E402
from psycopg.errors import DeadlockDetected, UniqueViolation  # noqa: E402

from accounts import credits, quota, services  # noqa: E402
from accounts.ledger import LedgerConflict  # noqa: E402
from accounts.ledger_checks import ledger_problems  # noqa: E402
from accounts.models import ApiKey, Hold, LedgerEntry, UsageRecord, User, Wallet  # noqa: E402
from accounts.quota import Held, HoldRequest, Settlement, UsageFigures  # noqa: E402
from accounts.tests.ledger_machine import DEAD, EFFORT, Ledger  # noqa: E402

THREADS = 4


def make_wallets(count: int, tokens: int) -> list[int]:
    made = []
    for number in range(count):
        wallet = services.create_user(f"racer{number}-{User.objects.count()}", None).wallet
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


def same_top_up(wallet_id: int, name: str, times: int) -> None:
    """All threads of all processes bring the very same credit."""

    def one(_thread: int) -> None:
        try:
            for number in range(times):
                quota.top_up(Wallet.objects.get(pk=wallet_id), 1000, "same", request_id=f"{name}-{number}")
        finally:
            connection.close()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, range(THREADS)))


def machine() -> None:
    """The state machine, on this process's database. Empties it."""
    run_state_machine_as_test(Ledger, settings=EFFORT)


def make_storm(wallet_ids: list[int], codes: int) -> dict[str, Any]:
    """What the storm needs: a key with a budget for each wallet, allowances, and codes."""
    keys = {}
    for wallet in Wallet.objects.filter(pk__in=wallet_ids):
        key = ApiKey.objects.create(user=wallet.user, name="k", hash=f"storm-{wallet.pk}", budget=STORM_BUDGET)
        credits.set_allowance(wallet, STORM_ALLOWANCE, "day")
        keys[str(wallet.pk)] = key.pk
    return {"keys": keys, "codes": credits.make_codes("storm", codes, STORM_CODE)[1]}


def storm(wallet_ids: list[int], given: dict[str, Any], name: str, times: int) -> dict[str, int]:
    """Everything at random from several threads: what came in and what was charged, by this worker's own tally."""
    barrier = threading.Barrier(THREADS)

    def one(thread: int) -> Counter[str]:
        chance, tally = random.Random(f"{name}-{thread}"), Counter[str]()
        barrier.wait()
        try:
            for turn in range(times):
                chance.choice(STORM)(chance, tally, wallet_ids, given, f"{name}-{thread}-{turn}")
        finally:
            connection.close()
        return tally

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(sum(pool.map(one, range(THREADS)), Counter()))


def _requests(chance: Any, tally: Counter[str], wallets: list[int], given: dict[str, Any], name: str) -> None:
    owner = {f"{name}-{number}": chance.choice(wallets) for number in range(6)}
    keys = {r: given["keys"][str(w)] if chance.random() < 0.5 else None for r, w in owner.items()}
    held = quota.hold_many([HoldRequest(r, w, "m", 3, 5, key_id=keys[r]) for r, w in owner.items()])
    got = [result for result in held if isinstance(result, Held)]
    done = got[: chance.randint(0, len(got))]
    quota.settle_many([settlement(r.request_id, owner[r.request_id], r.max_tokens, keys[r.request_id]) for r in done])
    quota.settle_many([settlement(r.request_id, owner[r.request_id], 1, keys[r.request_id]) for r in done[::2]])
    quota.release_many([result.request_id for result in got[len(done) :]])
    tally["charged"] += sum((2 + result.max_tokens) * 1000 for result in done)
    tally["requests"] += len(done)


def _deposit(chance: Any, tally: Counter[str], wallets: list[int], given: dict[str, Any], name: str) -> None:
    ends = timezone.now() + timedelta(days=chance.randint(1, 3)) if chance.random() < 0.5 else None
    quota.top_up(Wallet.objects.get(pk=chance.choice(wallets)), 5000, expires_at=ends)
    tally["came in"] += 5000


def _redeem(chance: Any, tally: Counter[str], wallets: list[int], given: dict[str, Any], name: str) -> None:
    try:
        credits.redeem(Wallet.objects.get(pk=chance.choice(wallets)).user, chance.choice(given["codes"]))
    except credits.CodeRefused:
        return
    tally["came in"] += STORM_CODE


def _sweep(chance: Any, tally: Counter[str], wallets: list[int], given: dict[str, Any], name: str) -> None:
    later = timezone.now() + timedelta(days=chance.randint(0, 4))
    credits.expire_lots(later, seconds=60)
    tally["came in"] += STORM_ALLOWANCE * credits.give_allowances(later, seconds=60)
    quota.release_dead_holds()


STORM_BUDGET, STORM_ALLOWANCE, STORM_CODE = 900_000, 7_000, 3_000
STORM = [_requests, _requests, _requests, _deposit, _redeem, _sweep]


def make_codes(count: int) -> list[str]:
    return credits.make_codes("codes", count, STORM_CODE)[1]


def events(plan: list[list[Any]], locked: bool) -> dict[str, Any]:
    """One after another: what came in, the codes that were taken, and the requests that were handed in for settlement.

    Not ``locked``: PostgreSQL's rows are not locked before they are read, so that the conditional changes stand alone. Then who
    comes second may be refused.
    """
    connection.features.has_select_for_no_key_update = locked and type(connection.features).has_select_for_no_key_update
    told: dict[str, Any] = {"came in": 0, "codes": [], "settled": []}
    for kind, *arguments in plan:
        try:
            EVENTS[kind](told, *arguments)
        except (DatabaseError, LedgerConflict) as error:
            if locked or not (isinstance(error, LedgerConflict) or isinstance(error.__cause__, CAME_SECOND)):
                raise
    return told


CAME_SECOND = (UniqueViolation, DeadlockDetected)


def _hold(told: dict[str, Any], wallet: int, requests: list[str], most: int) -> None:
    quota.hold_many([HoldRequest(request_id, wallet, "m", 2, most) for request_id in requests])


def _hold_and_die(told: dict[str, Any], wallet: int, requests: list[str], most: int) -> None:
    """As a process leaves them that is gone: the next sweep of anybody may take them."""
    _hold(told, wallet, requests, most)
    Hold.objects.filter(request_id__in=requests).update(owner=DEAD)


def _settle(told: dict[str, Any], wallet: int, requests: list[str], answer: int) -> None:
    quota.settle_many([settlement(request_id, wallet, answer) for request_id in requests])
    told["settled"] += requests


def _release(told: dict[str, Any], wallet: int, requests: list[str], _number: int) -> None:
    quota.release_many(requests)


def _top_up(told: dict[str, Any], wallet: int, _requests: list[str], tokens: int) -> None:
    quota.top_up(Wallet.objects.get(pk=wallet), tokens * 1000)
    told["came in"] += tokens * 1000


def _lend(told: dict[str, Any], wallet: int, _requests: list[str], tokens: int) -> None:
    quota.top_up(
        Wallet.objects.get(pk=wallet), tokens * 1000, expires_at=timezone.now() + timedelta(days=1 + tokens % 3)
    )
    told["came in"] += tokens * 1000


def _take_code(told: dict[str, Any], wallet: int, codes: list[str], _number: int) -> None:
    for code in codes:
        with contextlib.suppress(credits.CodeRefused):
            credits.redeem(Wallet.objects.get(pk=wallet).user, code)
            told["came in"] += STORM_CODE
            told["codes"].append(code)


def _expire(told: dict[str, Any], _wallet: int, _requests: list[str], days: int) -> None:
    credits.expire_lots(timezone.now() + timedelta(days=days % 4), seconds=60)


def _sweep_dead(told: dict[str, Any], _wallet: int, _requests: list[str], _number: int) -> None:
    quota.release_dead_holds()


EVENTS = {
    "hold": _hold,
    "hold and die": _hold_and_die,
    "settle": _settle,
    "release": _release,
    "top up": _top_up,
    "top up that expires": _lend,
    "redeem": _take_code,
    "expire": _expire,
    "sweep": _sweep_dead,
}


def settlement(request_id: str, wallet_id: int, answer: int = 4, key_id: int | None = None) -> Settlement:
    usage = UsageFigures(
        model_name="m",
        endpoint="chat.completions",
        status=200,
        outcome="completed",
        prompt_tokens=2,
        completion_tokens=answer,
    )
    return Settlement(request_id, wallet_id, usage, key_id)


def hold(wallet_id: int, name: str, count: int) -> None:
    quota.hold_many([HoldRequest(f"{name}-{number}", wallet_id, "m", 3, 5) for number in range(count)])


def check_beside_a_writer(wallet_id: int, name: str) -> list[str]:
    """What the proof names when a request is held and settled before each of its queries, by another connection."""
    numbers = itertools.count()

    def write() -> None:
        try:
            request_id = f"{name}-{next(numbers)}"
            quota.hold(HoldRequest(request_id, wallet_id, "m", 3, 5))
            quota.settle(settlement(request_id, wallet_id))
        finally:
            connection.close()

    def after_a_write(execute: Any, *arguments: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(write).result()
        return execute(*arguments)

    with connection.execute_wrapper(after_a_write):
        problems = ledger_problems()
    return [*problems, *([] if next(numbers) > 10 else ["nothing was written meanwhile"])]


def state() -> dict[str, Any]:
    return {
        "problems": ledger_problems(),
        "holds": Hold.objects.count(),
        "settled": LedgerEntry.objects.filter(kind="settle").count(),
        "usage": UsageRecord.objects.count(),
        "expired": -(LedgerEntry.objects.filter(kind="expire").aggregate(sum=Sum("available_change"))["sum"] or 0),
        "spent": LedgerEntry.objects.filter(kind="settle").aggregate(sum=Sum("cost"))["sum"] or 0,
        "wallets": {wallet.pk: [wallet.available, wallet.held] for wallet in Wallet.objects.all()},
    }


COMMANDS = {
    "migrate": partial(call_command, "migrate", verbosity=0),
    "make_wallets": make_wallets,
    "grab": grab,
    "mix": mix,
    "same_request": same_request,
    "same_top_up": same_top_up,
    "machine": machine,
    "make_storm": make_storm,
    "storm": storm,
    "make_codes": make_codes,
    "events": events,
    "hold": hold,
    "release_dead_holds": quota.release_dead_holds,
    "check_beside_a_writer": check_beside_a_writer,
    "state": state,
}

if __name__ == "__main__":
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(COMMANDS[command](*arguments)) + "\n")
        sys.stdout.flush()
