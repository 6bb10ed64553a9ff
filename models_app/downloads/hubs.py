"""What a repository on a hub holds: GGUF files with size, SHA-256 and licence, by the hubs' plain HTTP APIs.

Hugging Face: ``GET /api/models/{repository}/revision/{revision}?blobs=true``, files under
``/{repository}/resolve/{revision}/{path}``.
ModelScope: ``GET /api/v1/models/{repository}/repo/files?Revision=master&Recursive=true``, files under
``/api/v1/models/{repository}/repo?Revision=…&FilePath=…``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import httpx
from django.conf import settings

from models_app.downloads import addresses
from models_app.downloads.fetch import RemoteFile
from models_app.downloads.http import Source, get_json
from models_app.downloads.problems import Passing, Problem

HUGGING_FACE, MODELSCOPE = "huggingface", "modelscope"
HUBS = (HUGGING_FACE, MODELSCOPE)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
SAFE_PATH = re.compile(r"(?:[^\x00-\x1f\\/:*?\"<>|]+/)*[^\x00-\x1f\\/:*?\"<>|]+\.gguf\Z", re.IGNORECASE)
REACH_SECONDS = 4.0
MOST_FOUND = 20


@dataclass(frozen=True)
class Repository:
    hub: str
    name: str
    licence: str
    gated: bool
    files: tuple[RemoteFile, ...]  # GGUF files only; names are paths within the repository


def endpoint(hub: str) -> str:
    return str(settings.HF_ENDPOINT if hub == HUGGING_FACE else settings.MODELSCOPE_ENDPOINT)


def _source(hub: str, path: str, what: str) -> Source:
    if hub == HUGGING_FACE:
        return Source(endpoint(hub) + path, what, settings.HF_TOKEN, "HF_TOKEN")
    return Source(endpoint(hub) + path, what, settings.MODELSCOPE_API_TOKEN, "MODELSCOPE_API_TOKEN")


# -- which hub -----------------------------------------------------------------------------------------------------------
async def order(client: httpx.AsyncClient, wanted: str, language: str) -> list[str]:
    """The hubs to ask, best first. Raises Passing when none can be reached.

    Without a choice in ``wanted`` or MODEL_HUB: ModelScope first for people who read Chinese, else Hugging Face; each only if it
    answers within a few seconds.
    """
    chosen = wanted or settings.MODEL_HUB
    if chosen in HUBS:
        return [chosen]
    first = [MODELSCOPE, HUGGING_FACE] if language.lower().startswith("zh") else [HUGGING_FACE, MODELSCOPE]
    answers = await asyncio.gather(*(_answers(client, hub) for hub in first))
    there = [hub for hub, answer in zip(first, answers, strict=True) if answer]
    if not there:
        raise Passing("no_hub")
    return there


async def _answers(client: httpx.AsyncClient, hub: str) -> bool:
    """Any answer does, also a refusal."""
    try:
        async with asyncio.timeout(REACH_SECONDS):
            response = await client.head(endpoint(hub))
    except (Problem, httpx.HTTPError, TimeoutError):
        return False
    return response.status_code < 500


# -- what is in a repository -----------------------------------------------------------------------------------------------
async def repository(client: httpx.AsyncClient, hub: str, name: str) -> Repository:
    """Raises Problem; Passing when it may go better later."""
    if not REPOSITORY.match(name):
        raise Problem("url_not_understood", url=name[:200])
    try:
        return await READERS[hub](client, name)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise Problem("bad_answer", host=addresses.place_of(endpoint(hub)).host) from None


async def _hugging_face(client: httpx.AsyncClient, name: str) -> Repository:
    data = await get_json(client, _source(HUGGING_FACE, f"/api/models/{name}/revision/main?blobs=true", name))
    revision = str(data["sha"])  # what is fetched over hours is one and the same commit
    files = []
    for entry in data["siblings"]:
        path, big = str(entry["rfilename"]), entry.get("lfs") or {}
        source = _source(HUGGING_FACE, f"/{name}/resolve/{quote(revision)}/{quote(path)}", f"{name}/{path}")
        files.append(_file(source, path, entry.get("size"), big.get("sha256")))
    licence = str((data.get("cardData") or {}).get("license") or "")
    return Repository(HUGGING_FACE, name, licence[:100], bool(data.get("gated")), _only_models(files))


async def _modelscope(client: httpx.AsyncClient, name: str) -> Repository:
    path = f"/api/v1/models/{name}/repo/files?" + urlencode({"Revision": "master", "Recursive": "true"})
    data = await get_json(client, _source(MODELSCOPE, path, name))
    files = []
    for entry in data["Data"]["Files"]:
        if entry.get("Type") == "tree":
            continue
        path = str(entry["Path"])
        # The entry's own revision is the commit that last changed the file.
        query = urlencode({"Revision": str(entry.get("Revision") or "master"), "FilePath": path})
        source = _source(MODELSCOPE, f"/api/v1/models/{name}/repo?{query}", f"{name}/{path}")
        files.append(_file(source, path, entry.get("Size"), entry.get("Sha256")))
    return Repository(MODELSCOPE, name, await _modelscope_licence(client, name), False, _only_models(files))


async def _modelscope_licence(client: httpx.AsyncClient, name: str) -> str:
    """ "" when it is not told: a download does not fail for that."""
    try:
        data = await get_json(client, _source(MODELSCOPE, f"/api/v1/models/{name}", name))
        return str(data["Data"].get("License") or "")[:100]
    except (Problem, KeyError, TypeError, AttributeError):
        return ""


READERS: dict[str, Callable[[httpx.AsyncClient, str], Awaitable[Repository]]] = {
    HUGGING_FACE: _hugging_face,
    MODELSCOPE: _modelscope,
}


def _file(source: Source, path: str, size: Any, sha256: Any) -> RemoteFile:
    known = str(sha256 or "").lower()
    length = size if isinstance(size, int) and size > 0 else None
    return RemoteFile(source, path, length, known if SHA256.match(known) else None)


def _only_models(files: list[RemoteFile]) -> tuple[RemoteFile, ...]:
    return tuple(file for file in files if SAFE_PATH.match(file.name) and ".." not in file.name)


# -- searching -------------------------------------------------------------------------------------------------------------
async def search(client: httpx.AsyncClient, hub: str, words: str) -> list[str]:
    """Names of repositories with GGUF files. Raises Problem."""
    if hub == HUGGING_FACE:
        query = urlencode(
            {"search": words, "filter": "gguf", "sort": "downloads", "direction": -1, "limit": MOST_FOUND}
        )
        path = f"/api/models?{query}"
    else:
        query = urlencode({"search": f"{words} gguf", "sort": "downloads", "page_number": 1, "page_size": MOST_FOUND})
        path = f"/openapi/v1/models?{query}"
    data = await get_json(client, _source(hub, path, words))
    try:
        entries = data if hub == HUGGING_FACE else data["data"]["models"]
        names = [str(entry["id"]) for entry in entries]
    except (KeyError, TypeError):
        raise Problem("bad_answer", host=addresses.place_of(endpoint(hub)).host) from None
    return [name for name in names if REPOSITORY.match(name)][:MOST_FOUND]


# -- addresses of the hubs -------------------------------------------------------------------------------------------------
def from_url(url: str) -> tuple[str, str, str] | None:
    """(hub, repository, file) for an address of a file or repository on a hub; None for any other address."""
    try:
        parts = urlsplit(url)
    except ValueError:  # an address that none can be: ``addresses`` says so
        return None
    steps = [unquote(step) for step in parts.path.split("/") if step]
    for hub, hosts in (
        (HUGGING_FACE, ("huggingface.co", "hf.co")),
        (MODELSCOPE, ("modelscope.cn", "www.modelscope.cn")),
    ):
        if (parts.hostname or "") not in {*hosts, urlsplit(endpoint(hub)).hostname}:
            continue
        if hub == MODELSCOPE and steps[:1] == ["models"]:
            steps = steps[1:]
        name = "/".join(steps[:2])
        if not REPOSITORY.match(name) or steps[0] == "api":
            return None
        if len(steps) == 2:
            return hub, name, ""
        if steps[2] in {"resolve", "blob", "tree", "file", "files"}:
            file = "/".join(steps[4:])
            return hub, name, file if file.lower().endswith(".gguf") else ""
    return None
