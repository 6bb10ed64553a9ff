#!/usr/bin/env python3
"""Does a gateway charge what was delivered? Asked over HTTP only, so that any OpenAI-compatible gateway can be asked.

    python bench/ledger_correctness.py                                   # ours: starts it, two web servers and a Redis
    python bench/ledger_correctness.py --gateway litellm --url http://127.0.0.1:4000 --admin-key sk-… --upstream-port 9900

Behind the gateway stands a stand-in engine that notes what it read and delivered (tests/standin): the truth that charges are held
against. In tokens: the price of a token is 1, whatever it is called there. A gateway that is started elsewhere must have a model
``stand-in`` at http://127.0.0.1:UPSTREAM_PORT/v1 with a price of 0.000001 for each token, read or written.

- *overdraft*: 1,000 calls at once on a balance worth ten
- *left …*: clients that go away before the first byte, after it, in mid-stream, and at the very end
- *same request id*: calls that carry the same X-Request-Id, one after the other and at once
- *limit, two servers*: a limit of ten a minute, asked for in turns at two web servers (``--second-url``)
- *killed*: the web server dies (SIGKILL) with streams under way; what was delivered and not charged, and what of the balance is
  neither left nor charged 90 s later

The last two need what only the script's own service has, or ``--second-url`` and ``--kill-command``. The adapters for LiteLLM and
one-api follow their documentation and were not run here: both want a database server or a program that is not in Python's index.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aiohttp
import httpx

from tests import ledger_load, standin
from tests.ports import free_port
from tests.redis_server import running_redis
from tests.running_service import PROJECT, Service, wait_for
from tests.standin import truth

MODEL = ledger_load.MODEL
RICH = 10**6
LONG = 300  # words of a prompt that takes a while to read
QUIET_SECONDS = 5.0  # so long nothing more is charged: then it is all
HOLD_PATIENCE = 90.0


@dataclass
class Account:
    """``worth``: tokens it could pay at the beginning."""

    key: str
    worth: int
    handle: Any


class Gateway(Protocol):
    name: str
    urls: list[str]
    journal: Path

    def account(self, worth: int, per_minute: int = 0) -> Account: ...
    def charged(self, account: Account) -> float: ...
    def left(self, account: Account) -> float: ...
    def behave(self, **switches: Any) -> None: ...
    def kill(self) -> bool: ...


# -- gateways ------------------------------------------------------------------------------------------------------------
class Ours:
    """``manage.py serve`` and a second web server on the same database, limits in Redis."""

    name = "LLM Platform"

    def __init__(self, folder: Path, service: Service, second: str) -> None:
        self.folder, self.service = folder, service
        self.urls = [service.base_url, second]
        self.journal = folder / "journal"
        self.admin = service.client()

    def account(self, worth: int, per_minute: int = 0) -> Account:
        name, password = f"u{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
        body = {"username": name, "password": password, "email": ""}
        made = self._post("/api/v1/auth/register", body, httpx.Client(base_url=self.urls[0]))
        change = {"amount": worth * ledger_load.PRICE - made["user"]["balance"]["available"], "note": "bench"}
        self._post(f"/api/v1/users/{made['user']['id']}/credits", change, self.admin)
        own = self.service.client(made["access"])
        key = self._post("/api/v1/keys", {"name": "bench", "limits": {"rpm": per_minute}}, own)["key"]
        return Account(key, worth, made["user"])

    def charged(self, account: Account) -> float:
        told = self.admin.get("/api/v1/usage/report", params={"by": "user", "user": account.handle["username"]}).json()
        return float(told["totals"]["cost"] / ledger_load.PRICE)

    def left(self, account: Account) -> float:
        balance = self.admin.get(f"/api/v1/users/{account.handle['id']}").json()["balance"]
        return float(balance["available"] / ledger_load.PRICE)

    def behave(self, **switches: Any) -> None:
        standin.set_switches(self.folder / "llama-server", **ledger_load.switches(self.folder, **switches))

    def kill(self) -> bool:
        os.kill(self.service.pids()["web"], signal.SIGKILL)
        wait_for(self.service.is_ready, "the web server", 60)
        return True

    @staticmethod
    def _post(path: str, body: dict[str, Any], client: httpx.Client) -> Any:
        answer = client.post(path, json=body)
        if answer.status_code >= 400:
            raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
        return answer.json()


@contextlib.contextmanager
def ours() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as name, running_redis() as redis:
        folder, port = Path(name), free_port()
        with ledger_load.service(folder, REDIS_URL=redis.url) as service:
            environment = {**service.environment, "SERVER_PORT": str(port)}
            second = subprocess.Popen([sys.executable, "manage.py", "web"], cwd=PROJECT, env=environment)
            try:
                url = f"http://127.0.0.1:{port}"
                wait_for(lambda: _answers(url), "the second web server", 60)
                yield Ours(folder, service, url)
            finally:
                second.kill()
                second.wait()


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz").status_code == 200
    return False


class Elsewhere:
    """A gateway that runs already, before an engine of this script's."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.name, self.options = options.gateway, options
        self.urls = [options.url, *([options.second_url] if options.second_url else [])]
        self.journal = folder / "journal"
        self.engine = standin.start(port=options.upstream_port, key="", model=MODEL, journal=str(self.journal))
        self.admin = httpx.Client(base_url=options.url, headers={"Authorization": f"Bearer {options.admin_key}"})

    def behave(self, **switches: Any) -> None:
        usual = {"chunks": ledger_load.DELTAS, "token_seconds": ledger_load.TOKEN_SECONDS, "first_token_seconds": 0}
        self.engine.switch(**{**usual, **switches})

    def kill(self) -> bool:
        if not self.options.kill_command:
            return False
        subprocess.run(self.options.kill_command, shell=True, check=True)
        return True


class LiteLLM(Elsewhere):
    def account(self, worth: int, per_minute: int = 0) -> Account:
        body = {"max_budget": worth / 1e6, "models": [MODEL], **({"rpm_limit": per_minute} if per_minute else {})}
        key = self.admin.post("/key/generate", json=body).raise_for_status().json()["key"]
        return Account(key, worth, key)

    def charged(self, account: Account) -> float:
        told = self.admin.get("/key/info", params={"key": account.handle}).raise_for_status().json()
        return float(told["info"]["spend"]) * 1e6

    def left(self, account: Account) -> float:
        return account.worth - self.charged(account)


class OneApi(Elsewhere):
    """A key ("token" there) with a quota of its own; one unit of quota is a token where the model's ratio is 1."""

    def account(self, worth: int, per_minute: int = 0) -> Account:
        name = uuid.uuid4().hex
        body = {"name": name, "remain_quota": worth, "expired_time": -1, "unlimited_quota": False}
        self.admin.post("/api/token/", json=body).raise_for_status()
        return Account("sk-" + self._found(name)["key"], worth, name)

    def charged(self, account: Account) -> float:
        return float(self._found(account.handle)["used_quota"])

    def left(self, account: Account) -> float:
        return float(self._found(account.handle)["remain_quota"])

    def _found(self, name: str) -> dict[str, Any]:
        told = self.admin.get("/api/token/search", params={"keyword": name}).raise_for_status().json()
        return dict(told["data"][0])


# -- asking ------------------------------------------------------------------------------------------------------------
@dataclass
class Told:
    mark: str
    status: int = 0
    tokens: int = 0  # that the client saw


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    account: Account,
    *,
    leaves: str = "",
    words: int = 1,
    headers: dict[str, str] | None = None,
) -> Told:
    told = Told(uuid.uuid4().hex)
    messages = [{"role": "user", "content": f"{truth.mark(told.mark)} tell me{' something' * words}"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 40, "stream": bool(leaves)}
    all_headers = {"Authorization": f"Bearer {account.key}", **(headers or {})}
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with (
            asyncio.timeout(0.15 if leaves == "before the first byte" else 60),
            session.post(f"{url}/v1/chat/completions", json=body, headers=all_headers) as answer,
        ):
            told.status = answer.status
            if answer.status != 200:
                await answer.read()
            elif not leaves:
                told.tokens = (await answer.json())["usage"]["completion_tokens"]
            else:
                await follow(told, answer, leaves)
    return told


async def follow(told: Told, answer: aiohttp.ClientResponse, leaves: str) -> None:
    until = {"after the first byte": 1, "in mid-stream": ledger_load.DELTAS // 2, "at the end": ledger_load.DELTAS}
    async for line in answer.content:
        told.tokens += b'"content":"' in line.replace(b": ", b":") and b'"content":""' not in line.replace(b": ", b":")
        if told.tokens >= until.get(leaves, 10**9):
            answer.close()
            return


async def together(urls: list[str], account: Account, count: int, **how: Any) -> list[Told]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*[ask(session, urls[n % len(urls)], account, **how) for n in range(count)])


async def in_turns(urls: list[str], account: Account, count: int, **how: Any) -> list[Told]:
    async with aiohttp.ClientSession() as session:
        return [await ask(session, urls[n % len(urls)], account, **how) for n in range(count)]


# -- what came of it -----------------------------------------------------------------------------------------------------
@dataclass
class Row:
    case: str
    calls: int
    answered: int
    delivered: float
    charged: float
    gave_away: float
    took: float
    note: str = ""


def settled(gateway: Gateway, account: Account) -> float:
    """What is charged, once nothing more comes for a while."""
    charged, since = gateway.charged(account), time.monotonic()
    while time.monotonic() < since + QUIET_SECONDS:
        time.sleep(0.5)
        if (now := gateway.charged(account)) != charged:
            charged, since = now, time.monotonic()
    return charged


def row(gateway: Gateway, case: str, account: Account, told: list[Told], note: str = "") -> Row:
    charged = settled(gateway, account)
    noted = truth.read(gateway.journal)
    attempts = [(one, attempt) for one in told for attempt in noted.get(one.mark, [])[-1:]]
    least = sum((attempt.prompt if one.tokens else 0) + one.tokens for one, attempt in attempts)
    most = sum(attempt.prompt + max(attempt.answer, attempt.made) for _one, attempt in attempts)
    overdrawn = max(0.0, least - account.worth)
    answered = sum(one.status == 200 for one in told)
    gave_away = max(0.0, least - charged, overdrawn)
    return Row(case, len(told), answered, least, charged, gave_away, max(0.0, charged - most), note)


def overdraft(gateway: Gateway) -> Row:
    sample = gateway.account(RICH)
    asyncio.run(together(gateway.urls[:1], sample, 1))
    one = settled(gateway, sample)
    # Ours refuses what it cannot be sure of: a balance worth ten answers, with room for the bound of the last one.
    account = gateway.account(round(10 * one) + 200)
    told = asyncio.run(together(gateway.urls[:1], account, 1000))
    return row(gateway, "overdraft", account, told, f"a balance worth {account.worth} tokens, {one:.0f} for an answer")


def leaving(gateway: Gateway, when: str) -> Row:
    account = gateway.account(RICH)
    if when == "before the first byte":
        gateway.behave(first_token_seconds=0.5)
        # A prompt that takes a while to read; how fast that goes now can be known.
        asyncio.run(in_turns(gateway.urls[:1], gateway.account(RICH), 3, words=LONG))
    else:
        gateway.behave(token_seconds=0.02)
    told = asyncio.run(together(gateway.urls[:1], account, 50, leaves=when, words=LONG))
    gateway.behave()
    return row(gateway, f"left {when}", account, told)


def same_request_id(gateway: Gateway) -> Row:
    account = gateway.account(RICH)
    headers = {"X-Request-Id": uuid.uuid4().hex, "Idempotency-Key": uuid.uuid4().hex}
    told = asyncio.run(in_turns(gateway.urls[:1], account, 10, headers=headers))
    told += asyncio.run(together(gateway.urls[:1], account, 20, headers=headers))
    return row(gateway, "same request id", account, told)


def limit_on_two_servers(gateway: Gateway) -> Row | None:
    if len(gateway.urls) < 2:
        return None
    account = gateway.account(RICH, per_minute=10)
    told = asyncio.run(together(gateway.urls, account, 60))
    found = row(gateway, "limit, two servers", account, told, "ten a minute")
    found.note += f", {max(0, found.answered - 10)} more than that"
    return found


def killed(gateway: Gateway) -> Row | None:
    account = gateway.account(RICH)
    gateway.behave(token_seconds=0.3)

    async def streams() -> tuple[list[Told], bool]:
        running = asyncio.create_task(together(gateway.urls[:1], account, 10, leaves="never"))
        await asyncio.sleep(3.0)
        done = await asyncio.to_thread(gateway.kill)
        return await running, done

    told, done = asyncio.run(streams())
    gateway.behave()
    if not done:
        return None
    end = time.monotonic() + HOLD_PATIENCE

    def missing() -> float:
        return account.worth - gateway.left(account) - gateway.charged(account)

    while missing() and time.monotonic() < end:
        time.sleep(2)
    return row(gateway, "killed", account, told, f"{missing():.0f} tokens neither left nor charged")


CASES: list[Callable[[Gateway], Row | None]] = [
    overdraft,
    *[lambda gateway, when=when: leaving(gateway, when)  # type: ignore[misc]
      for when in ("before the first byte", "after the first byte", "in mid-stream", "at the end")],
    same_request_id,
    limit_on_two_servers,
    killed,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateway", choices=["ours", "litellm", "one-api"], default="ours")
    parser.add_argument("--url", default="", help="of a gateway that runs already")
    parser.add_argument("--second-url", default="", help="of its second web server")
    parser.add_argument("--admin-key", default="")
    parser.add_argument("--upstream-port", type=int, default=9900)
    parser.add_argument("--kill-command", default="", help="kills its web server and starts it again")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if options.gateway == "ours":
            gateway = stack.enter_context(ours())
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            gateway = {"litellm": LiteLLM, "one-api": OneApi}[options.gateway](options, folder)
            stack.callback(gateway.engine.stop)
        gateway.behave()
        print(f"{gateway.name}, in tokens")
        print(f"{'':28}{'calls':>7}{'answered':>10}{'delivered':>11}{'charged':>9}{'gave away':>11}{'took':>7}")
        for case in CASES:
            found = case(gateway)
            if found is not None:
                figures = f"{found.delivered:>11.0f}{found.charged:>9.0f}{found.gave_away:>11.0f}{found.took:>7.0f}"
                print(f"{found.case:28}{found.calls:>7}{found.answered:>10}{figures}  {found.note}", flush=True)


if __name__ == "__main__":
    main()
