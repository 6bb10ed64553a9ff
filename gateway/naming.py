"""From the name a client writes to the model that answers: aliases, the default model, and shares of the traffic. Pure.

    asked for             answered by
    a model's name        the model
    an alias              the model it stands for
    no name               the default model
    …with `traffic`       one of the others for their share of conversations, as long as it serves; no further than one step

Which conversations make up a share is drawn from the asker, the model asked for and how the conversation begins: it stays with
one model to its end, whose cache has read it, and with a growing share further conversations join those that are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from gateway.endpoints import Endpoint
from models_app.selectors import ModelView

NO_NAME = ""  # what a request without a model's name asks for
INPUTS = ("messages", "input", "prompt", "query")  # of which an endpoint has one


def names_of(views: Iterable[ModelView]) -> dict[str, str]:
    """Models' own names by whatever else stands for them."""
    names: dict[str, str] = {}
    for view in views:
        names |= dict.fromkeys(view.aliases, view.name)
        if view.is_default:
            names[NO_NAME] = view.name
    return names


def answering(
    view: ModelView, endpoint: Endpoint, body: Mapping[str, Any], user_id: int, serves: Callable[[str], bool]
) -> str:
    """Which model answers what ``view`` is asked for."""
    if not view.traffic or not endpoint.splits_traffic:
        return view.name
    place, end = _place(f"{view.name}\0{user_id}\0{beginning(body)}"), 0
    for name, percent in view.traffic:
        end += percent
        if place < end:
            return name if serves(name) else view.name
    return view.name


def _place(text: str) -> int:
    """0 to 99, each as likely."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % 100


def beginning(body: Mapping[str, Any]) -> str:
    """What stays the same while a conversation grows: the first thing a person said in it. Of other requests, all their input."""
    given = next((body[name] for name in INPUTS if name in body), "")
    if isinstance(given, list):
        said = [part for part in given if isinstance(part, dict)]
        first = next((part for part in said if part.get("role") == "user"), None)
        if first is not None:
            given = first.get("content")
    return _text(given)


def _text(content: object) -> str:
    """The same for a text and for a list whose only part is that text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "".join(
        part["text"] if isinstance(part, dict) and isinstance(part.get("text"), str) else json.dumps(part)
        for part in parts
    )
