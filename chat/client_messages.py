"""What a client may say on the websocket: parsed into dataclasses, anything else refused with a reason. Pure.

Authenticate  anyone        a token, when there is no session
Send          user          a question, in one's own conversation or a new one
Stop, Regenerate, Resume    user, one's own messages
Watch         user          one's own conversation
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

from django.utils.translation import gettext as _

from chat.services import LONGEST_CONTENT, ChatError, as_uuid
from llmplatform.lib.json_bounds import is_too_complex

LONGEST_MESSAGE = 1024 * 1024  # characters of one websocket message
LONGEST_NAME = 128
LONGEST_TOKEN = 8192
LONGEST_CLIENT_ID = 100


@dataclass(frozen=True, slots=True)
class Authenticate:
    token: str


@dataclass(frozen=True, slots=True)
class Send:
    conversation: UUID | None
    model: str
    content: str
    params: dict[str, Any]
    client_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    message: UUID


@dataclass(frozen=True, slots=True)
class Regenerate:
    message: UUID
    model: str  # "" for the model of the old answer
    params: dict[str, Any]
    client_id: str


@dataclass(frozen=True, slots=True)
class Resume:
    message: UUID
    after: int


@dataclass(frozen=True, slots=True)
class Watch:
    conversation: UUID


ClientMessage = Authenticate | Send | Stop | Regenerate | Resume | Watch


def parse(text: str | None) -> dict[str, Any]:
    """The JSON object of a text message; ``None`` stands for a binary one. Raises ChatError."""
    if text is None:
        _refuse(_("Send text messages with JSON in them."))
    if len(text) > LONGEST_MESSAGE:
        raise ChatError("request_too_large", _("The message is too long."))
    if is_too_complex(text.encode("utf-8", "replace")):
        _refuse(_("The message is not valid JSON."))
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        _refuse(_("The message is not valid JSON."))
    if not isinstance(value, dict):
        _refuse(_("The message must be a JSON object."))
    return value


def read(fields: dict[str, Any]) -> ClientMessage:
    """Which message it is. Raises ChatError for an unknown type, an unknown field, a wrong type; NotFound for what is no id."""
    type_ = fields.get("type")
    if not isinstance(type_, str) or type_ not in _READERS:
        _refuse(_("Unknown message type."))
    reader, known = _READERS[type_]
    if unknown := sorted(set(fields) - known - {"type"}):
        _refuse(_("Unknown field: %(name)s") % {"name": str(unknown[0])[:LONGEST_NAME]})
    return reader(fields)


def client_id_of(fields: dict[str, Any]) -> str:
    """By which name the client knows its request; in refusals too."""
    value = fields.get("client_id")
    return value if isinstance(value, str) and len(value) <= LONGEST_CLIENT_ID else ""


def _refuse(reason: str) -> NoReturn:
    raise ChatError("invalid_request", reason)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _text(fields: dict[str, Any], name: str, longest: int, *, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or (not value.strip() and value != default):
        _refuse(_("“%(name)s” must be a text.") % {"name": name})
    if len(value) > longest:
        _refuse(_("“%(name)s” is too long: at most %(longest)d characters.") % {"name": name, "longest": longest})
    return value


# -- one reader for each type --------------------------------------------------------------------------------------------
def _authenticate(fields: dict[str, Any]) -> Authenticate:
    return Authenticate(_text(fields, "token", LONGEST_TOKEN))


def _send(fields: dict[str, Any]) -> Send:
    conversation = fields.get("conversation")
    return Send(
        conversation=None if conversation in (None, "") else as_uuid(conversation),
        model=_text(fields, "model", LONGEST_NAME),
        content=_text(fields, "content", LONGEST_CONTENT),
        params=params(fields.get("params")),
        client_id=client_id_of(fields),
    )


def _stop(fields: dict[str, Any]) -> Stop:
    return Stop(as_uuid(fields.get("message")))


def _regenerate(fields: dict[str, Any]) -> Regenerate:
    return Regenerate(
        message=as_uuid(fields.get("message")),
        model=_text(fields, "model", LONGEST_NAME, default=""),
        params=params(fields.get("params")),
        client_id=client_id_of(fields),
    )


def _resume(fields: dict[str, Any]) -> Resume:
    after = fields.get("after", 0)
    if isinstance(after, bool) or not isinstance(after, int) or after < 0:
        _refuse(_("“%(name)s” must be a whole number, not below 0.") % {"name": "after"})
    return Resume(as_uuid(fields.get("message")), after)


def _watch(fields: dict[str, Any]) -> Watch:
    return Watch(as_uuid(fields.get("conversation")))


_READERS: dict[str, tuple[Callable[[dict[str, Any]], ClientMessage], frozenset[str]]] = {
    "auth": (_authenticate, frozenset({"token"})),
    "send": (_send, frozenset({"conversation", "model", "content", "params", "client_id"})),
    "stop": (_stop, frozenset({"message"})),
    "regenerate": (_regenerate, frozenset({"message", "model", "params", "client_id"})),
    "resume": (_resume, frozenset({"message", "after"})),
    "watch": (_watch, frozenset({"conversation"})),
}

# -- how the model is to answer ------------------------------------------------------------------------------------------
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 5),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0, 5),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}
_WHOLE_RANGES: dict[str, tuple[int, int]] = {
    "max_tokens": (1, 1_000_000),
    "top_k": (0, 1_000_000),
    "seed": (0, 2**32 - 1),
}


def params(value: object) -> dict[str, Any]:
    """The allow-list of settings for one answer; null means the model's own."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse(_("“%(name)s” must be an object.") % {"name": "params"})
    return {name: _param(str(name), setting) for name, setting in value.items() if setting is not None}


def _param(name: str, value: object) -> float | int:
    bounds = _WHOLE_RANGES.get(name) or _RANGES.get(name)
    if bounds is None:
        _refuse(_("Unknown setting: %(name)s") % {"name": name[:LONGEST_NAME]})
    wanted = int if name in _WHOLE_RANGES else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted) or not math.isfinite(value):
        _refuse(_("“%(name)s” must be a number.") % {"name": name})
    if not bounds[0] <= value <= bounds[1]:
        values = {"name": name, "low": bounds[0], "high": bounds[1]}
        _refuse(_("“%(name)s” must be between %(low)s and %(high)s.") % values)
    return value
