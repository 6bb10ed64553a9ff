"""Models that are known to be good on processors: ``catalogue.json``, and what each would need on this machine.

Sizes and hashes are those the hubs tell for the named files; a download is checked against what the hub tells then. ``null``
stands where a fact is not known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from models_app import machine, memory
from models_app.downloads import hubs
from models_app.downloads.hubs import HUGGING_FACE
from models_app.downloads.problems import Passing, Problem
from models_app.gguf import GgufFacts

SLOTS = 2
CONTEXT = 4096  # tokens for each slot
RANK = {True: 0, None: 1, False: 2}
# The catalogue does not know it; models have 2.5 to 6 times their width.
FEED_FORWARD = 4
FORMAT = re.compile(r"I?Q\d_(?:K|\d|NL|XS)|MXFP4|BF16|F16")


@dataclass(frozen=True)
class Entry:
    id: str
    name: str
    kind: str  # chat, embedding, rerank
    huggingface: str | None
    modelscope: str | None
    file: str
    size: int | None
    sha256: str | None
    licence: str | None
    parameters: float | None  # billions
    context: int | None
    languages: tuple[str, ...]  # "many": more than those named
    memory: dict[str, int] | None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """As ``services.pull`` takes it."""
        return f"{self.huggingface or self.modelscope}:{self.file}"


@dataclass(frozen=True)
class Offer:
    """An entry on this machine. ``needed``: bytes at the start with 2 × 4096 tokens; without the context where its shape is not
    known (``exact`` is False then, and ``fits`` None unless even that is too much), None where nothing is known."""

    entry: Entry
    needed: int | None
    exact: bool
    fits: bool | None


@cache
def entries() -> tuple[Entry, ...]:
    data = json.loads(Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8"))
    return tuple(Entry(**{**one, "languages": tuple(one["languages"])}) for one in data["models"])


def find(entry_id: str) -> Entry | None:
    return next((entry for entry in entries() if entry.id == entry_id), None)


def repository_on(hub: str, repository: str) -> str:
    """What a repository of the catalogue is called on a hub; any other one keeps its name."""
    for entry in entries():
        if repository in {entry.huggingface, entry.modelscope}:
            return (entry.huggingface if hub == HUGGING_FACE else entry.modelscope) or repository
    return repository


async def on_one_of(client: httpx.AsyncClient, order: Sequence[str], name: str) -> tuple[str, hubs.Repository]:
    """The first of these hubs that has the repository, and what is in it. Raises Problem; Passing when it may go better later."""
    for number, hub in enumerate(order, 1):
        try:
            return hub, await hubs.repository(client, hub, repository_on(hub, name))
        except Problem as problem:
            if isinstance(problem, Passing) or number == len(order):
                raise
    raise Passing("no_hub")


def offers(available: int | None = None) -> list[Offer]:
    """What fits first, the largest of that first; then what does not. ``available``: bytes; None asks the machine."""
    room = machine.available_memory() if available is None else available
    found = [_offer(entry, room) for entry in entries()]
    return sorted(found, key=lambda offer: (RANK[offer.fits], offer.entry.kind != "chat", -(offer.needed or 0)))


def _offer(entry: Entry, room: int) -> Offer:
    if entry.size is None:
        return Offer(entry, None, False, None)
    context = min(CONTEXT, entry.context or CONTEXT)
    load = memory.Load(context, SLOTS, encodes=entry.kind != "chat", repacked=machine.repacked_formats())
    need = memory.need(facts_of(entry), load)
    if entry.memory is None:
        return Offer(entry, need.at_start, False, False if need.at_start > room else None)
    return Offer(entry, need.at_start, True, need.at_start <= room)


def facts_of(entry: Entry) -> GgufFacts:
    """As far as the memory plan needs them; of an entry whose shape is not known, its size alone."""
    size = entry.size or 0
    shape = entry.memory or dict.fromkeys(
        ("layers", "kvHeads", "keyLength", "valueLength", "vocabulary", "embeddingLength"), 0
    )
    format_ = FORMAT.search((entry.file or "").upper())
    return GgufFacts(
        architecture="",
        kind=entry.kind,
        name=entry.name,
        quantization=format_[0] if format_ else "",
        parameters=round((entry.parameters or 0) * 1e9),
        size=size,
        parts=1,
        context_length=entry.context or 0,
        layers=shape["layers"],
        embedding_length=shape["embeddingLength"],
        feed_forward_length=FEED_FORWARD * shape["embeddingLength"],
        heads=0,
        kv_heads=shape["kvHeads"],
        key_length=shape["keyLength"],
        value_length=shape["valueLength"],
        experts=0,
        experts_used=0,
        tokenizer="",
        vocabulary=shape["vocabulary"],
        merges=shape["vocabulary"],
        chat_template=entry.kind == "chat",
        pooling=entry.kind == "embedding",
        kv_values=shape["layers"] * shape["kvHeads"] * (shape["keyLength"] + shape["valueLength"]),
        window=0,
        window_values=0,
        state_bytes=0,
        state_width=0,
        # Of which formats a file consists in detail shows only its header; most of a model of that name is of this one.
        stored=((format_[0] if format_ else "", size),),
        embedded_bytes=0,
        embedded_kind="",
        tied=True,
    )


def shown(offer: Offer) -> dict[str, Any]:
    """One offer as the API answers it."""
    entry = offer.entry
    return {
        "id": entry.id,
        "name": entry.name,
        "kind": entry.kind,
        "source": entry.source,
        "huggingface": entry.huggingface,
        "modelscope": entry.modelscope,
        "file": entry.file,
        "size": entry.size,
        "sha256": entry.sha256,
        "licence": entry.licence,
        "parameters": entry.parameters,
        "contextLength": entry.context,
        "languages": list(entry.languages),
        "memoryNeeded": offer.needed,
        "memoryExact": offer.exact,
        "fits": offer.fits,
    }
