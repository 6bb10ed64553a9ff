"""People who ask all the while, and what became of each of their requests."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import aiohttp
import httpx2  # what the official client is built on
import openai

from tests.running_service import Service

PATIENCE = 90.0  # seconds; longer than anything in the service waits
PAUSE = 0.3  # between two questions of one person: the machine is to be busy, not drowned
WORDS = "Tell me a story about the sea and the people who live beside it."
# How requests may end that were understood and could not be served.
REFUSALS = {
    (404, "model_not_found"),
    (502, "upstream_error"),
    (503, "model_not_available"),
    (503, "overloaded"),
    (503, "service_unavailable"),
}
# The official client wraps what breaks before an answer, and nothing of what breaks in the middle of a stream.
DROPPED = (aiohttp.ClientError, httpx2.HTTPError, ConnectionError)
SILENT = (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException)


@dataclass
class Asked:
    how: str
    model: str
    began: float
    ended: float = 0.0
    end: str = ""  # answered, left, refused, cut by an error event, dropped, silence, or malformed
    told: str = ""

    def __str__(self) -> str:
        return f"{self.how} of {self.model} from {self.began:.2f} to {self.ended:.2f} s: {self.end} {self.told}"


class Malformed(Exception):
    """An answer of no form that the API has."""


class Told(Exception):
    """An error in the API's own form: ``(status, code)``; status 0 in a stream that had begun."""


class Clients:
    """``with Clients(...) as clients``: they ask until the end of the block, in a thread with a loop of its own."""

    def __init__(self, service: Service, keys: Sequence[str], seed: int, began: float) -> None:
        self.service, self.keys, self.began = service, keys, began
        self.random = random.Random(seed)
        self.asked: list[Asked] = []
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1, "clients")
        self.ways: list[tuple[str, str, Callable[[str, str], Awaitable[str]]]] = [
            ("OpenAI stream", "chat", self._sdk_stream),
            ("OpenAI answer", "chat", self._sdk_answer),
            ("raw stream", "chat", self._raw_stream),
            ("raw stream, left", "chat", self._left_stream),
            ("OpenAI stream", "extra", self._sdk_stream),
            ("OpenAI embedding", "embedder", self._sdk_embedding),
            ("raw rerank", "reranker", self._raw_rerank),
        ]

    def __enter__(self) -> Clients:
        self._done = self._pool.submit(lambda: asyncio.run(self._run()))
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._done.result(PATIENCE + 30)

    def counted(self) -> dict[str, int]:
        return dict(sorted(Counter(f"{one.end} {one.told}".strip() for one in self.asked).items()))

    def all_answered(self, since: float, models: set[str]) -> bool:
        """Whether each way to ask one of these has been answered."""
        served = {
            (one.how, one.model) for one in list(self.asked) if one.end in {"answered", "left"} and one.began >= since
        }
        return served >= {(how, model) for how, model, _ask in self.ways if model in models}

    async def _run(self) -> None:
        async with aiohttp.ClientSession(self.service.base_url, timeout=aiohttp.ClientTimeout(PATIENCE)) as session:
            self.session = session
            await asyncio.gather(*[self._client(way) for way in self.ways])

    async def _client(self, way: tuple[str, str, Callable[[str, str], Awaitable[str]]]) -> None:
        how, model, ask = way
        while not self._over.is_set():
            asked = Asked(how, model, time.monotonic() - self.began)
            try:
                asked.end = await asyncio.wait_for(ask(model, self.random.choice(self.keys)), PATIENCE)
            except SILENT:  # before the dropped, which these are too
                asked.end = "silence"
            except (Told, openai.APIError) as error:
                asked.end, asked.told = _told(error)
            except DROPPED as error:
                asked.end, asked.told = "dropped", type(error).__name__
            except Malformed as error:
                asked.end, asked.told = "malformed", str(error)
            asked.ended = time.monotonic() - self.began
            self.asked.append(asked)
            await asyncio.sleep(PAUSE)

    # -- ways to ask ---------------------------------------------------------------------------------------------------
    def _sdk(self, key: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key=key, base_url=f"{self.service.base_url}/v1", max_retries=0, timeout=PATIENCE)

    async def _sdk_stream(self, model: str, key: str) -> str:
        finish = None
        async with self._sdk(key) as client:
            stream = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": WORDS}], max_tokens=24, stream=True
            )
            async for chunk in stream:
                finish = (chunk.choices[0].finish_reason if chunk.choices else None) or finish
        return _complete(finish, "stream")

    async def _sdk_answer(self, model: str, key: str) -> str:
        async with self._sdk(key) as client:
            answer = await client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": WORDS}], max_tokens=16
            )
        return _complete(answer.choices[0].finish_reason, "answer")

    async def _sdk_embedding(self, model: str, key: str) -> str:
        async with self._sdk(key) as client:
            answer = await client.embeddings.create(model=model, input=["token1 token2", "token3"])
        return _complete(len(answer.data) == 2 and len(answer.data[0].embedding) > 1, "embedding")

    async def _raw_rerank(self, model: str, key: str) -> str:
        body = {"model": model, "query": "token1", "documents": ["token2 token3", "token4"]}
        async with self.session.post("/v1/rerank", json=body, headers=_headers(key)) as answer:
            found = await _json(answer)
        return _complete(len(found.get("results", ())) == 2, "rerank")

    async def _raw_stream(self, model: str, key: str) -> str:
        last = b""
        async with self._open_stream(model, key) as answer:
            if answer.status != 200:
                await _json(answer)
            async for line in answer.content:
                last = _event(line) or last
        return _complete(last == b"[DONE]", "stream")

    async def _left_stream(self, model: str, key: str) -> str:
        """Goes after some of the answer."""
        async with self._open_stream(model, key) as answer:
            if answer.status != 200:
                await _json(answer)
            patience = self.random.randrange(1, 20)
            async for line in answer.content:
                patience -= bool(_event(line))
                if not patience:
                    answer.close()
                    return "left"
        return "answered"

    def _open_stream(self, model: str, key: str):
        body = {"model": model, "messages": [{"role": "user", "content": WORDS}], "max_tokens": 24, "stream": True}
        return self.session.post("/v1/chat/completions", json=body, headers=_headers(key))


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _complete(good: object, what: str) -> str:
    if not good:
        raise Malformed(f"{what} without its end")
    return "answered"


async def _json(answer: aiohttp.ClientResponse) -> dict:
    """Of an answer that is whole; raises Told for an error."""
    raw = await answer.read()
    try:
        found = json.loads(raw)
        if answer.status != 200:
            raise Told(answer.status, _code(found["error"]))
    except (ValueError, LookupError, TypeError) as error:
        raise Malformed(f"{answer.status} {raw[:200]!r}") from error
    return found


def _event(line: bytes) -> bytes:
    """What a line of a stream carries; raises Told for an error."""
    data = line.strip().removeprefix(b"data: ") if line.startswith(b"data: ") else b""
    if data.startswith(b"{"):
        found = json.loads(data)
        if "error" in found:
            raise Told(0, _code(found["error"]))
    return data


def _code(error: dict) -> str:
    """Raises LookupError for one that lacks what the API promises."""
    if not (error["message"] and error["type"]):
        raise LookupError("message")
    return str(error["code"])


def _told(error: Exception) -> tuple[str, str]:
    if isinstance(error, openai.APIConnectionError):
        return "dropped", type(error).__name__
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        status, code = error.status_code, str(body.get("code"))
    elif isinstance(error, openai.APIError):
        status, code = 0, str(error.code)
    else:
        status, code = error.args
    if status == 0:
        return ("cut by an error event" if code in {known for _status, known in REFUSALS} else "malformed"), code
    return ("refused" if (status, code) in REFUSALS else "malformed"), f"{status} {code}"
