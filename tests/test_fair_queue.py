"""One person with many requests and another with one, on a real service with the real engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.running_service import Service, put_starter_model, running, wait_for

pytestmark = pytest.mark.e2e
CHAT = "/v1/chat/completions"
STARTER = "smollm2-135m-instruct"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MANY = 40
SLOTS = 2
LONG = 4000  # tokens: more seconds than it takes until all wait and whoever is last is told, on the fastest machine
SLACK = timedelta(milliseconds=200)  # times of records are those of the arrival, a moment late
TOLD = re.compile(r": waiting for a slot, position (\d+), about \d+ ms")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Its model may write a ``LONG`` answer."""
    home = tmp_path_factory.mktemp("fair-queue") / "home"
    put_starter_model(home / "models")
    model = {"modelName": STARTER, "modelFile": FILE, "contextLength": 4096, "slots": SLOTS, "maxTokens": LONG}
    (home / "models" / "model_config.json").write_text(json.dumps({"models": [model]}))
    with running(home, starter=False) as service:
        wait_for(service.model_is_ready, "the model", 120)
        yield service


def person(service: Service) -> tuple[str, dict[str, str]]:
    """Somebody new who can pay for all of it: the name, and headers to ask with."""
    name = f"fair-{secrets.token_hex(4)}"
    account = {"username": name, "password": secrets.token_urlsafe(12), "email": f"{name}@example.org"}
    with service.client() as admin:
        made = admin.post("/api/v1/auth/register", json=account).raise_for_status().json()
        admin.post(f"/api/v1/users/{made['user']['id']}/credits", json={"amount": 10**9}).raise_for_status()
    return name, {"Authorization": f"Bearer {made['access']}"}


def body(**more: Any) -> dict[str, Any]:
    question = f"Count to {secrets.randbelow(10**6)}."
    return {"model": STARTER, "messages": [{"role": "user", "content": question}], "max_tokens": 6, **more}


class Crowd:
    """While all slots are taken: ``MANY`` requests of one person, a single one of somebody else, and a stream behind them all."""

    def __init__(
        self, client: httpx.AsyncClient, blocker: dict[str, str], many: dict[str, str], one: dict[str, str]
    ) -> None:
        self.client, self.blocker, self.many, self.one = client, blocker, many, one
        self.answered = 0
        self.heard: list[tuple[int, datetime]] = []
        self.told = asyncio.Event()
        self.stream_id = ""

    async def run(self) -> httpx.Response:
        """The single one's answer."""
        async with contextlib.AsyncExitStack() as blockers:
            for _ in range(SLOTS):
                await blockers.enter_async_context(self.block())
            asking = [asyncio.create_task(self.ask(self.many)) for _ in range(MANY)]
            await self.wait_for_queue(MANY)
            single = asyncio.create_task(self.ask_once())
            await self.wait_for_queue(MANY + 1)
            listening = asyncio.create_task(self.listen())
            await self.told.wait()
        await asyncio.gather(single, *asking, listening)
        return single.result()

    @contextlib.asynccontextmanager
    async def block(self) -> AsyncIterator[None]:
        """An answer of a third person that is under way."""
        long = body(stream=True, max_tokens=LONG, ignore_eos=True)
        async with self.client.stream("POST", CHAT, json=long, headers=self.blocker) as answer:
            chunks = answer.aiter_bytes()  # kept: the connection ends with it
            await anext(chunks)
            yield

    async def wait_for_queue(self, length: int) -> None:
        while await self.queued() < length:
            pass  # each look takes its time

    async def ask(self, headers: dict[str, str]) -> httpx.Response:
        answer = (await self.client.post(CHAT, json=body(), headers=headers)).raise_for_status()
        self.answered += 1
        return answer

    async def ask_once(self) -> httpx.Response:
        """``left``: how many of the others were not answered then."""
        answer = await self.ask(self.one)
        self.left = MANY - self.answered + 1
        return answer

    async def listen(self) -> None:
        async with self.client.stream("POST", CHAT, json=body(stream=True), headers=self.many) as answer:
            async for line in answer.aiter_lines():
                if found := TOLD.match(line):
                    self.heard.append((int(found[1]), datetime.now(UTC)))
                    self.told.set()
            self.stream_id = answer.headers["x-request-id"]

    async def queued(self) -> float:
        text = (await self.client.get("/metrics")).text
        found = re.search(rf'^llm_requests_queued{{model="{STARTER}"}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0


def begun(service: Service, name: str) -> dict[str, datetime]:
    """When each of somebody's requests got its slot, by its id; up to some milliseconds later."""
    with service.client() as admin:
        records = wait_for(lambda: records_of(admin, name), "the records of all requests")
    return {
        record["request_id"]: datetime.fromisoformat(record["time"]) + timedelta(milliseconds=record["queue_ms"])
        for record in records
    }


def records_of(admin: httpx.Client, name: str) -> list[dict[str, Any]]:
    answer = admin.get("/api/v1/usage", params={"user": name, "limit": 200}).raise_for_status()
    records: list[dict[str, Any]] = answer.json()["results"]
    return records if len(records) > MANY else []


def test_another_persons_single_request_waits_for_one_turn_and_who_waits_hears_the_truth(service: Service) -> None:
    (name, many), (_other, one), (_third, blocker) = (person(service) for _ in range(3))

    async def run() -> tuple[Crowd, httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=service.base_url, timeout=120, limits=limits) as client:
            crowd = Crowd(client, blocker, many, one)
            return crowd, await crowd.run()

    crowd, single = asyncio.run(run())
    assert int(single.headers["x-queue-position"]) <= 2
    assert crowd.left > MANY / 2
    positions = [position for position, _moment in crowd.heard]
    assert positions == sorted(set(positions), reverse=True)
    assert positions[0] == MANY + 2
    begins = begun(service, name)
    own = begins.pop(crowd.stream_id)
    for position, moment in crowd.heard:
        came_before = [begin for begin in begins.values() if moment + SLACK < begin < own - SLACK]
        assert len(came_before) < position
