#!/usr/bin/env python3
"""Which replica gets a request, measured: time to the first token of each routing policy with real engines.

    python bench/multiturn.py [--rounds 2] [--loads multi-turn system different hot] [--policies cost least_busy …] [--scale 1]
        [--slower 1]

One service for each policy (``ROUTING``), all running at once, each with 4 replicas of the starter model that have 2 slots and
one thread each. The same seeded load is asked of one after the other, and of all again in the next round, in another order, so
that what else the machine does hits all alike. ``ideal``: the same turns, one conversation at a time and each turn after the
other, on the service that routes by cost: every turn finds its conversation in the cache and nobody in its way.

Loads: ``multi-turn``, 16 conversations with about 1,000 tokens in their first message and four turns; ``hot``, half of them
are one user's, who does not think; ``system``, 48 questions after one system prompt of about 1,000 tokens; ``different``, 48
prompts of about 250 tokens that have nothing in common. Answers have 16 tokens, so that reading is what takes time.
``--scale``: so many times as many conversations or requests. ``--slower``: so many times as long between them.

Told for all requests, and for those that follow another one of their conversation: the first of each is in nobody's cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.running_service import Service, running, wait_for  # noqa: E402 - its path is known only now

STARTER = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL, REPLICAS = "m", 4
POLICIES = ("cost", "least_busy", "round_robin", "hash")
IDEAL = "ideal"
WORDS = (
    *(
        "time",
        "year",
        "people",
        "way",
        "day",
        "man",
        "thing",
        "woman",
        "life",
        "child",
        "world",
        "school",
        "state",
        "family",
    ),
    *(
        "student",
        "group",
        "country",
        "problem",
        "hand",
        "part",
        "place",
        "case",
        "week",
        "company",
        "system",
        "program",
        "work",
    ),
    *(
        "question",
        "night",
        "point",
        "home",
        "water",
        "room",
        "mother",
        "area",
        "money",
        "story",
        "fact",
        "month",
        "right",
        "book",
    ),
)
WANTED = {"ideal": 1.15, "round_robin": 5.0, "least_busy": 1.0}
NOISE = 1.02  # times; nobody would notice


@dataclass(frozen=True)
class Conversation:
    """``starts`` after so many seconds; each question with the seconds before it. ``user``: 0 is the hot one."""

    user: int
    starts: float
    system: str
    questions: tuple[tuple[float, str], ...]


@dataclass
class Seen:
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)  # of those, without the first of each conversation
    prompt: int = 0
    cached: int = 0

    def add(self, other: Seen) -> None:
        self.first += other.first
        self.later += other.later
        self.prompt += other.prompt
        self.cached += other.cached

    def quantile(self, part: float, *, later: bool = False) -> float:
        ordered = sorted(self.later if later else self.first)
        return ordered[min(int(part * len(ordered)), len(ordered) - 1)]

    @property
    def hit(self) -> float:
        return self.cached / max(self.prompt, 1)


# -- loads -------------------------------------------------------------------------------------------------------------
def text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def conversations(load: str, seed: int, scale: float, slower: float) -> list[Conversation]:
    chance, made, moment = random.Random(f"{load} {seed}"), list[Conversation](), 0.0
    pause = {"system": 2.5, "different": 4.0}.get(load, 5.0) * slower
    if load in ("multi-turn", "hot"):
        for number in range(round(16 * scale)):
            hot = load == "hot" and number % 2 == 0
            thinks = [0.0, *(0.0 if hot else chance.expovariate(1 / 12 / slower) for _ in range(3))]
            words = (chance.randrange(700, 1000), *(chance.randrange(20, 40) for _ in range(3)))
            questions = tuple((think, text(chance, count)) for think, count in zip(thinks, words, strict=True))
            made.append(Conversation(0 if hot else 1, moment, "", questions))
            moment += chance.expovariate(1 / pause)
        return made
    system, words = (text(chance, 850), 25) if load == "system" else ("", 200)
    for _ in range(round(48 * scale)):
        made.append(Conversation(1, moment, system, ((0.0, text(chance, words)),)))
        moment += chance.expovariate(1 / pause)
    return made


class Asker:
    """Asks one service. Everything it asks begins with a mark of its own, so that no run finds what another left."""

    def __init__(self, service: Service, tokens: Sequence[str]) -> None:
        self._service = service
        self._tokens = tokens

    async def run(self, load: Sequence[Conversation], *, one_by_one: bool) -> Seen:
        mark, seen = secrets.token_hex(8), Seen()
        async with httpx.AsyncClient(base_url=self._service.base_url, timeout=300) as client:
            if one_by_one:
                for conversation in load:
                    await self._talk(client, conversation, mark, seen, in_time=False)
            else:
                await asyncio.gather(*(self._talk(client, one, mark, seen, in_time=True) for one in load))
        return seen

    async def _talk(
        self, client: httpx.AsyncClient, conversation: Conversation, mark: str, seen: Seen, *, in_time: bool
    ) -> None:
        messages = [{"role": "system", "content": f"{mark} {conversation.system}"}] if conversation.system else []
        start = 0.0 if conversation.system else 1.0
        await asyncio.sleep(conversation.starts if in_time else 0)
        for number, (think, question) in enumerate(conversation.questions):
            await asyncio.sleep(think if in_time else 0)
            content = f"{mark} {question}" if start and not number else question
            messages.append({"role": "user", "content": content})
            messages.append(
                {"role": "assistant", "content": await self._ask(client, conversation.user, messages, seen)}
            )

    async def _ask(self, client: httpx.AsyncClient, user: int, messages: list[dict[str, str]], seen: Seen) -> str:
        body = {
            "model": MODEL, "messages": messages, "max_tokens": 16, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        headers, answer, began = {"Authorization": f"Bearer {self._tokens[user]}"}, "", time.perf_counter()
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                choices = event.get("choices") or [{}]
                content = choices[0].get("delta", {}).get("content") or ""
                if content and not answer:
                    seen.first.append(time.perf_counter() - began)
                    seen.later += seen.first[-1:] if len(messages) > 2 else []
                answer += content
                if usage := event.get("usage"):
                    seen.prompt += usage["prompt_tokens"]
                    seen.cached += usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        return answer


# -- services ----------------------------------------------------------------------------------------------------------
def prepare(service: Service) -> list[str]:
    """The model, and tokens of two people who can pay."""
    tokens = []
    with service.client(timeout=120) as client:
        for model in client.get("/api/v1/models").json()["models"]:
            client.delete(f"/api/v1/models/{model['modelName']}").raise_for_status()
        body = {
            "modelName": MODEL, "modelFile": STARTER, "contextLength": 4096, "slots": 2, "threads": 1, "replicas": REPLICAS,
        }  # fmt: skip
        client.post("/api/v1/models", json=body).raise_for_status()
        for _ in range(2):
            name = f"user-{secrets.token_hex(4)}"
            account = {"username": name, "password": secrets.token_urlsafe(12), "email": f"{name}@example.org"}
            person = client.post("/api/v1/auth/register", json=account).raise_for_status().json()
            client.post(f"/api/v1/users/{person['user']['id']}/credits", json={"amount": 10**12}).raise_for_status()
            tokens.append(person["access"])
        wait_for(lambda: all_ready(client), "four replicas", 120)
    return tokens


def all_ready(client: httpx.Client) -> bool:
    text = client.get(f"/api/v1/models/{MODEL}").json()
    return [replica["state"] for replica in text["running"]].count("ready") == REPLICAS


# -- telling -----------------------------------------------------------------------------------------------------------
def table(load: str, seen: dict[str, Seen], *, later: bool) -> None:
    what = f"{load}, without the first of each conversation" if later else load
    print(f"\n{what}\n\n| | requests | hit rate | first token, s: median | p90 | p95 |\n|---|---|---|---|---|---|")
    for name, one in seen.items():
        figures = " | ".join(f"{one.quantile(part, later=later):.2f}" for part in (0.5, 0.9, 0.95))
        print(f"| {name} | {len(one.later if later else one.first)} | {one.hit:.0%} | {figures} |")
    cost = seen.get("cost")
    if cost is None:
        return

    def ratio(one: Seen, other: Seen, part: float) -> float:
        return one.quantile(part, later=later) / other.quantile(part, later=later)

    if (ideal := seen.get(IDEAL)) is not None:
        told("median / ideal", ratio(cost, ideal, 0.5), "≤", WANTED["ideal"])
    if (other := seen.get("round_robin")) is not None:
        told("p90 of round_robin / ours", ratio(other, cost, 0.9), "≥", WANTED["round_robin"])
    if (other := seen.get("least_busy")) is not None:
        for name, part in (("median", 0.5), ("p95", 0.95)):
            told(f"{name} / least_busy", ratio(cost, other, part), "≤", WANTED["least_busy"])


def told(what: str, ratio: float, relation: str, wanted: float) -> None:
    held = ratio >= wanted if relation == "≥" else ratio <= wanted * (NOISE if wanted == 1 else 1)
    print(f"- {what}: {ratio:.2f} (wanted {relation} {wanted:g}{'' if held else ': missed'})", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--loads", nargs="+", default=["multi-turn", "system", "different", "hot"])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--slower", type=float, default=1.0)
    parser.add_argument("--no-ideal", action="store_true")
    return parser.parse_args()


def main() -> None:
    wanted = arguments()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        askers: dict[str, Asker] = {}
        for policy in wanted.policies:
            service = stack.enter_context(running(Path(folder) / policy, ROUTING=policy, REGISTRATION="open"))
            askers[policy] = Asker(service, prepare(service))
        for load in wanted.loads:
            ways = list(wanted.policies) + ([] if wanted.no_ideal or "cost" not in askers else [IDEAL])
            seen = {way: Seen() for way in ways}
            for number in range(wanted.rounds):
                asked = conversations(load, number, wanted.scale, wanted.slower)
                for way in ways[number % len(ways) :] + ways[: number % len(ways)]:
                    asker = askers["cost" if way == IDEAL else way]
                    began = time.monotonic()
                    seen[way].add(asyncio.run(asker.run(asked, one_by_one=way == IDEAL)))
                    print(f"  {load}, round {number + 1}, {way}: {time.monotonic() - began:.0f} s, median "
                          f"{statistics.median(seen[way].first):.2f}", file=sys.stderr)  # fmt: skip
            table(load, seen, later=False)
            if any(one.later for one in seen.values()):
                table(load, seen, later=True)


if __name__ == "__main__":
    main()
