"""Asking a llama-server how it is. Each question has its own time limit; no answer is an answer here, never an exception."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import httpx

CONNECT, WRITE, POOL = 2.0, 5.0, 5.0
LIMITS = httpx.Timeout(connect=CONNECT, read=5, write=WRITE, pool=POOL)
MAX_SHOWN = 200


class Health(Enum):
    OK = "ok"
    LOADING = "loading"
    DOWN = "down"


class NoToken(Exception):
    """It takes requests but does not generate. The message says what it did instead."""


def new_client() -> httpx.AsyncClient:
    """Without the environment's proxies: llama-servers are on this machine or in this network."""
    return httpx.AsyncClient(timeout=LIMITS, trust_env=False, verify=False)  # noqa: S501 - plain HTTP only; loading CAs costs 10 MB


async def health(client: httpx.AsyncClient, base_url: str) -> Health:
    try:
        status = (await client.get(base_url + "/health")).status_code
    except httpx.HTTPError:
        return Health.DOWN
    if status == httpx.codes.OK:
        return Health.OK
    return Health.LOADING if status == httpx.codes.SERVICE_UNAVAILABLE else Health.DOWN


async def accepts_key(client: httpx.AsyncClient, base_url: str, key: str) -> bool:
    """Whether this is the llama-server we gave that key: it takes ours and refuses another."""
    try:
        right = await client.get(base_url + "/v1/models", headers=_headers(key))
        wrong = await client.get(base_url + "/v1/models", headers=_headers("x" + key[1:]))
    except httpx.HTTPError:
        return False
    return right.status_code == httpx.codes.OK and wrong.status_code == httpx.codes.UNAUTHORIZED


async def generate_token(client: httpx.AsyncClient, base_url: str, key: str, embeddings: bool, seconds: float) -> None:
    """One real token (or one embedding) within ``seconds``. Raises NoToken."""
    timeout = httpx.Timeout(connect=CONNECT, read=seconds, write=WRITE, pool=POOL)
    path, body = ("/v1/embeddings", {"input": "1"}) if embeddings else ("/completion", _ONE_TOKEN)
    try:
        answer = await client.post(base_url + path, json=body, headers=_headers(key), timeout=timeout)
        made = _made(answer.json(), embeddings) if answer.status_code == httpx.codes.OK else False
    except httpx.HTTPError as error:
        raise NoToken(str(error) or type(error).__name__) from error
    except ValueError as error:
        raise NoToken("not JSON") from error
    if not made:
        raise NoToken(f"{answer.status_code} {answer.text[:MAX_SHOWN]}")


_ONE_TOKEN = {"prompt": "1", "n_predict": 1, "temperature": 0, "ignore_eos": True, "cache_prompt": False}


def _made(answer: Any, embeddings: bool) -> bool:
    try:
        return bool(answer["data"][0]["embedding"]) if embeddings else answer["tokens_predicted"] >= 1
    except (KeyError, IndexError, TypeError):
        return False


async def requests_under_way(client: httpx.AsyncClient, base_url: str, key: str) -> int | None:
    """Requests it works on or keeps waiting; None when it does not say."""
    try:
        text = (await client.get(base_url + "/metrics", headers=_headers(key))).text
    except httpx.HTTPError:
        return None
    counts = re.findall(r"^llamacpp:requests_(?:processing|deferred) (\d+)", text, re.MULTILINE)
    return sum(map(int, counts)) if counts else None


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
