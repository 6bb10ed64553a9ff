"""Many clients at once, who leave at any moment, on a service whose processes are killed; and what the books say afterwards.

The service is a real one (``manage.py serve``); only its engines are stand-ins, so that thousands of answers take seconds. They
note what they read and delivered in a journal that outlives them: that, and what the clients saw, is held against the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests import standin
from tests.running_service import PROJECT, Service, new_service, put_starter_model, wait_for
from tests.standin import truth

MODEL = "stand-in"
PRICE = 1000  # micro-credits a token
RICH = 10**12
REPLICAS, SLOTS = 3, 8
DELTAS = 12
TOKEN_SECONDS = 0.002
# How a client behaves, and of ten how many do.
FATES = {"whole": 2, "stays": 4, "leaves before": 1, "leaves in mid-stream": 2, "leaves at the end": 1}

PLAIN = {"balance": RICH, "unlimited": False, "budget": None}
PEOPLE: dict[str, dict[str, Any]] = {
    **{f"rich{number}": {} for number in range(5)},
    "poor": {"balance": 400 * PRICE},
    "bounded": {"budget": 600 * PRICE},
    "unlimited": {"unlimited": True},
}

PLAIN_BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Is it so?"}], "max_tokens": 4}

SETUP = """
import django, json, sys
django.setup()
from accounts import keys, quota, services
from accounts.keys import NewKey
given, told = json.loads(sys.argv[1]), {}
for name, wanted in given.items():
    user = services.register_user(name, f"password-of-{name}-1", f"{name}@example.org")
    quota.set_unlimited(user.wallet, wanted["unlimited"])
    if wanted["balance"] != user.wallet.available:
        quota.adjust(user.wallet, wanted["balance"] - user.wallet.available)
    told[name] = keys.create_key(user, NewKey(name=name, budget=wanted["budget"]))[1]
print(json.dumps(told))
"""
SWEEP = """
import django
django.setup()
from accounts.quota import release_dead_holds
release_dead_holds()
"""
BOOKS = """
import django, json, sys
django.setup()
from django.db.models import Max, Sum
from accounts.ledger_checks import ledger_problems
from accounts.models import Hold, LedgerEntry, UsageHour, UsageRecord, Wallet
def total(rows, column):
    return rows.aggregate(sum=Sum(column))["sum"] or 0
settled = LedgerEntry.objects.filter(kind="settle")
print(json.dumps({
    "problems": ledger_problems(),
    "holds": Hold.objects.count(),
    "requests": dict(settled.values_list("request_id", "cost")),
    "settlements": settled.count(),
    "settled": total(settled, "cost"),
    "recorded": total(UsageRecord.objects, "cost"),
    "summed": total(UsageHour.objects, "cost"),
    "balances": total(Wallet.objects, "available") + total(Wallet.objects, "held"),
    "entries": total(LedgerEntry.objects, "available_change") + total(LedgerEntry.objects, "held_change"),
    "spent": dict(Wallet.objects.values_list("user__username", "spent")),
    "largest_hold": dict(LedgerEntry.objects.filter(kind="hold").values_list("wallet__user__username").annotate(
        most=Max("held_change"))),
    "lowest": min(Wallet.objects.values_list("available", flat=True)),
}))
"""


@dataclass
class Size:
    requests: int = 300
    clients: int = 24
    engine_kills: int = 1
    web_kills: int = 1
    seed: int = 1


@dataclass
class Asked:
    """A request as its client saw it. ``tokens``: delivered to it."""

    mark: str
    fate: str
    began: float
    ended: float = 0.0
    request_id: str = ""
    status: int = 0
    tokens: int = 0
    finished: bool = False
    error: str = ""


@dataclass
class Outcome:
    asked: list[Asked]
    books: dict[str, Any]
    truth: truth.Truth
    web_killed_at: list[float] = field(default_factory=list)

    def prompt(self, mark: str) -> int:
        """As the client sent it. Whoever goes on with an answer reads that, too, of which nobody pays."""
        return next((one.prompt for one in self.truth.get(mark, []) if one.prompt), 0)

    def was_gone_on_with(self, mark: str) -> bool:
        return any(one.prompt > self.prompt(mark) for one in self.truth.get(mark, []))

    def cost_at_the_engine(self, mark: str) -> int:
        """The most it can have cost: what the engines read and made for the attempt that answered, or one after the other."""
        attempts, prompt = self.truth.get(mark, []), self.prompt(mark)
        if self.was_gone_on_with(mark):
            return PRICE * (prompt + sum(one.answer for one in attempts))
        return max((PRICE * (one.prompt + max(one.answer, one.made)) for one in attempts), default=0)

    def cost_when_finished(self, asked: Asked) -> int:
        """Where an engine died and another went on, some of what it wrote last never came, and was written again."""
        if self.was_gone_on_with(asked.mark):
            return PRICE * (self.prompt(asked.mark) + asked.tokens)
        return self.cost_at_the_engine(asked.mark)

    def least_cost(self, asked: Asked) -> int:
        """For what the client was given."""
        return PRICE * (self.prompt(asked.mark) + asked.tokens) if asked.tokens else 0

    def hit_by_a_kill(self, asked: Asked) -> bool:
        """The web server died while it ran, or so soon after that its settlement may not have been written."""
        return any(asked.began <= moment <= asked.ended + 1 for moment in self.web_killed_at)

    def findings(self) -> dict[str, int]:
        """All must be 0. ``free …`` in micro-credits."""
        charged = self.books["requests"]
        known = [one for one in self.asked if one.request_id]
        safe = [one for one in known if not self.hit_by_a_kill(one)]
        nameless = sum(charged.values()) - sum(charged.get(one.request_id, 0) for one in known)
        at_most = sum(self.cost_at_the_engine(one.mark) for one in self.asked if not one.request_id)
        return {
            "problems that ledgercheck names": len(self.books["problems"]),
            "holds left": self.books["holds"],
            "settled and recorded differ by": abs(self.books["settled"] - self.books["recorded"]),
            "settled and summed by the hour differ by": abs(self.books["settled"] - self.books["summed"]),
            "balances and entries differ by": abs(self.books["balances"] - self.books["entries"]),
            "requests charged twice": self.books["settlements"] - len(charged),
            "overdrawn": max(0, -self.books["lowest"]),
            "given away": sum(max(0, self.least_cost(one) - charged.get(one.request_id, 0)) for one in safe),
            "given away because the web server was killed": sum(
                max(0, PRICE * one.tokens - charged.get(one.request_id, 0)) for one in known if self.hit_by_a_kill(one)
            ),
            "taken without a service": sum(
                max(0, charged.get(one.request_id, 0) - self.cost_at_the_engine(one.mark)) for one in known
            )
            + max(0, nameless - at_most),
            "finished answers charged otherwise than the engine counts": sum(
                charged.get(one.request_id) != self.cost_when_finished(one) for one in safe if one.finished
            ),
            "answers of 5xx that were charged": sum(
                charged.get(one.request_id, 0) > 0 for one in known if one.status >= 500
            ),
        }

    def prompts_lost_to_kills(self) -> int:
        """Prompts of answers that streamed for less than a second when the web server was killed: nobody had counted them yet."""
        charged = self.books["requests"]
        hit = [one for one in self.asked if one.request_id and self.hit_by_a_kill(one)]
        return sum(max(0, self.least_cost(one) - charged.get(one.request_id, 0)) for one in hit)

    def by_status(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for one in self.asked:
            name = one.error or str(one.status or "left before an answer")
            counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items()))


def switches(folder: Path, **changes: Any) -> dict[str, Any]:
    """Of the engines."""
    return {"chunks": DELTAS, "token_seconds": TOKEN_SECONDS, "journal": str(folder / "journal"), **changes}


# -- the service ---------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def service(folder: Path, **changes: str) -> Iterator[Service]:
    """With several replicas of one model. ``changes`` are environment variables."""
    home = folder / "home"
    models = home / "models"
    put_starter_model(models)
    [file] = models.glob("*.gguf")
    entry = {"modelName": MODEL, "modelFile": file.name, "replicas": REPLICAS, "slots": SLOTS, "contextLength": 2048}
    (models / "model_config.json").write_text(json.dumps({"models": [entry]}))
    engine = standin.write_executable(folder / "llama-server", **switches(folder))
    started = new_service(home, LLAMA_CPP_PATH=str(engine), QUEUE_LENGTH="1000", STARTER_MODEL="none", **changes)
    try:
        started.start()
        wait_for(lambda: len(started.engines()) == REPLICAS and started.model_is_ready(MODEL), "the replicas", 120)
        yield started
        assert started.stop() == 0, started.output
    finally:
        started.kill_what_is_left()


def in_django(service: Service, code: str, *arguments: str) -> Any:
    variables = {**service.environment, "DJANGO_SETTINGS_MODULE": "llmplatform.settings"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def make_keys(service: Service, people: dict[str, dict[str, Any]]) -> dict[str, str]:
    """By name. Each is a new account with a key."""
    wanted = {name: {**PLAIN, **person} for name, person in people.items()}
    return dict(in_django(service, SETUP, json.dumps(wanted)))


# -- the load --------------------------------------------------------------------------------------------------------------
class Load:
    def __init__(self, service: Service, size: Size) -> None:
        self.service, self.size = service, size
        self.random = random.Random(size.seed)
        self.keys = list(make_keys(service, PEOPLE).values())
        self.asked: list[Asked] = []
        self.web_killed_at: list[float] = []

    async def run(self) -> list[Asked]:
        self.kills = self._kills()
        async with aiohttp.ClientSession(self.service.base_url, timeout=aiohttp.ClientTimeout(60)) as session:
            self.session = session
            clients = [asyncio.create_task(self._client()) for _ in range(self.size.clients)]
            await asyncio.gather(*clients)
        return self.asked

    def _kills(self) -> list[tuple[int, Any]]:
        """After how many requests who is killed."""
        kills = [self.kill_an_engine] * self.size.engine_kills + [self.kill_the_web_server] * self.size.web_kills
        return [(self.size.requests * (number + 1) // (len(kills) + 1), kill) for number, kill in enumerate(kills)]

    def kill_an_engine(self) -> None:
        engines = self.service.engines()
        if engines:
            engines[0].kill()

    def kill_the_web_server(self) -> None:
        self.web_killed_at.append(time.monotonic())
        os.kill(self.service.pids()["web"], signal.SIGKILL)

    async def _client(self) -> None:
        while len(self.asked) < self.size.requests:
            [fate] = self.random.choices(list(FATES), list(FATES.values()))
            asked = Asked(f"r{len(self.asked)}", fate, time.monotonic())
            self.asked.append(asked)
            if self.kills and len(self.asked) == self.kills[0][0]:
                self.kills.pop(0)[1]()
            try:
                await self._ask_until_somebody_listens(asked)
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                asked.error = type(error).__name__
            asked.ended = time.monotonic()

    async def _ask_until_somebody_listens(self, asked: Asked) -> None:
        while True:
            try:
                return await self._ask(asked)
            except aiohttp.ClientConnectorError:  # nothing was sent
                await asyncio.sleep(0.1)

    async def _ask(self, asked: Asked) -> None:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"{truth.mark(asked.mark)} tell me something"}],
            "stream": asked.fate != "whole",
            "max_tokens": 40,
        }
        headers = {"Authorization": f"Bearer {self.random.choice(self.keys)}"}
        patience = self.random.random() * 0.05 if asked.fate == "leaves before" else None
        post = self.session.post("/v1/chat/completions", json=body, headers=headers)
        with contextlib.suppress(TimeoutError) if patience else contextlib.nullcontext():
            async with asyncio.timeout(patience), post as answer:
                asked.status, asked.request_id = answer.status, answer.headers.get("x-request-id", "")
                if patience is None or answer.status != 200:
                    await self._read(asked, answer)
                else:
                    answer.close()

    async def _read(self, asked: Asked, answer: aiohttp.ClientResponse) -> None:
        if answer.status != 200:
            asked.error = f"{answer.status} {(await answer.json())['error']['code']}"
        elif asked.fate == "whole":
            asked.tokens = (await answer.json())["usage"]["completion_tokens"]
            asked.finished = True
        else:
            await self._follow(asked, answer)

    async def _follow(self, asked: Asked, answer: aiohttp.ClientResponse) -> None:
        leaves_after = self.random.randrange(1, DELTAS) if asked.fate == "leaves in mid-stream" else None
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                asked.finished = asked.finished or line.startswith(b"data: [DONE]")
                continue
            event = json.loads(line[6:])
            if "error" in event:
                asked.error = "error in the stream"
                return
            choice = event["choices"][0] if event["choices"] else {}
            asked.tokens += bool(choice.get("delta", {}).get("content"))
            if asked.tokens == leaves_after or (choice.get("finish_reason") and asked.fate == "leaves at the end"):
                answer.close()
                return


async def all_at_once(service: Service, key: str, requests: int) -> list[tuple[int, int]]:
    """Status and tokens of each."""
    connector = aiohttp.TCPConnector(limit=requests)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(service.base_url, connector=connector, headers=headers) as session:

        async def ask() -> tuple[int, int]:
            async with session.post("/v1/chat/completions", json=PLAIN_BODY) as answer:
                return answer.status, (await answer.json()).get("usage", {}).get("total_tokens", 0)

        return await asyncio.gather(*[ask() for _ in range(requests)])


# -- the books -------------------------------------------------------------------------------------------------------------
def books(service: Service, *, sweep: bool = False) -> dict[str, Any]:
    """``sweep``: what the supervisor does once a minute is done first."""
    return dict(in_django(service, (SWEEP if sweep else "") + BOOKS))


def run(service: Service, size: Size, journal: Path, *, sweep: bool = False) -> Outcome:
    """All requests, and the books once nothing is under way."""
    load = Load(service, size)
    asked = asyncio.run(load.run())

    def settled() -> dict[str, Any] | None:
        found = books(service, sweep=sweep)
        return found if not found["holds"] else None

    return Outcome(
        asked, wait_for(settled, "every hold to be given back", 150), truth.read(journal), load.web_killed_at
    )
