"""Asking a llama-server how it is. Each question has its own time limit; no answer is an answer here, never an exception."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any

import aiohttp

from models_app.gguf import CHAT, EMBEDDING, RERANK

CONNECT, READ = 2.0, 5.0
# Both are sockets' errors or aiohttp's own; which of them tells nothing here.
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)
MAX_SHOWN = 200
METRIC = re.compile(r"^llamacpp:(\w+) ([\d.eE+-]+)", re.MULTILINE)
COUNTERS = ("prompt_tokens_total", "tokens_predicted_total", "n_decode_total")


class Health(Enum):
    OK = "ok"
    LOADING = "loading"
    DOWN = "down"


class NoToken(Exception):
    """It takes requests but does not generate. The message says what it did instead."""


def new_client() -> aiohttp.ClientSession:
    """In a running loop. Not httpx: each of its requests looks through all connections there are, and a supervisor of fifty
    replicas used three times the processor (bench/supervisor.py). The environment's proxies are not asked: llama-servers are
    on this machine."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)  # llama-server closes them after 5 s
    return aiohttp.ClientSession(connector=connector, timeout=_limits(READ), cookie_jar=aiohttp.DummyCookieJar())


def _limits(read: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=CONNECT, sock_connect=CONNECT, sock_read=read)


async def _get(client: aiohttp.ClientSession, url: str, key: str = "") -> tuple[int, str]:
    async with client.get(url, headers=_headers(key) if key else {}, allow_redirects=False) as answer:
        return answer.status, await answer.text(errors="replace")


async def health(client: aiohttp.ClientSession, base_url: str) -> Health:
    try:
        status, _text = await _get(client, base_url + "/health")
    except NO_ANSWER:
        return Health.DOWN
    if status == HTTPStatus.OK:
        return Health.OK
    return Health.LOADING if status == HTTPStatus.SERVICE_UNAVAILABLE else Health.DOWN


async def accepts_key(client: aiohttp.ClientSession, base_url: str, key: str) -> bool:
    """Whether this is the llama-server we gave that key: it takes ours and refuses another."""
    try:
        right, _text = await _get(client, base_url + "/v1/models", key)
        wrong, _text = await _get(client, base_url + "/v1/models", "x" + key[1:])
    except NO_ANSWER:
        return False
    return right == HTTPStatus.OK and wrong == HTTPStatus.UNAUTHORIZED


async def generate_token(client: aiohttp.ClientSession, base_url: str, key: str, kind: str, seconds: float) -> None:
    """One real token, embedding or score, as the ``kind`` of ``models_app.gguf`` wants, within ``seconds``. Raises NoToken."""
    path, body, made_of = SMALLEST[kind]
    try:
        async with client.post(base_url + path, json=body, headers=_headers(key), timeout=_limits(seconds)) as answer:
            text = await answer.text(errors="replace")
            made = answer.status == HTTPStatus.OK and made_of(json.loads(text))
    except NO_ANSWER as error:
        raise NoToken(str(error) or type(error).__name__) from error
    except (ValueError, LookupError, TypeError) as error:
        raise NoToken("not JSON, or not of that form") from error
    if not made:
        raise NoToken(f"{answer.status} {text[:MAX_SHOWN]}")


_ONE_TOKEN = {"prompt": "1", "n_predict": 1, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
# By kind of model: what is asked, and what shows in the answer that it was done.
SMALLEST: dict[str, tuple[str, dict[str, Any], Callable[[Any], bool]]] = {
    CHAT: ("/completion", _ONE_TOKEN, lambda answer: answer["tokens_predicted"] >= 1),
    EMBEDDING: ("/v1/embeddings", {"input": "1"}, lambda answer: bool(answer["data"][0]["embedding"])),
    RERANK: (
        "/v1/rerank",
        {"query": "1", "documents": ["1"]},
        lambda answer: "relevance_score" in answer["results"][0],
    ),
}


@dataclass(frozen=True)
class Work:
    """``counter`` grows with each batch it computes; None with ``busy``: it is too busy to say, or hangs."""

    busy: int  # requests it works on or keeps waiting
    counter: float | None


async def work(client: aiohttp.ClientSession, base_url: str, key: str) -> Work | None:
    """None when it has no such page."""
    try:
        status, text = await _get(client, base_url + "/metrics", key)
    except TimeoutError:  # it is answered between two batches
        return Work(1, None)
    except NO_ANSWER:
        return None
    values = {name: float(value) for name, value in METRIC.findall(text)}
    if status != HTTPStatus.OK or "requests_processing" not in values:
        return None
    busy = values["requests_processing"] + values.get("requests_deferred", 0)
    return Work(int(busy), sum(values.get(name, 0) for name in COUNTERS))


async def requests_under_way(client: aiohttp.ClientSession, base_url: str, key: str) -> int | None:
    """Requests it works on or keeps waiting; None when it does not say."""
    seen = await work(client, base_url, key)
    return None if seen is None else seen.busy


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
