"""Who changes what: services call ``record`` or ``on``; the audit log (``accounts.audit_log``) takes what they tell.

It stands here, below all apps, because models and machines are changed too, and their apps must not import accounts. Call it
inside the transaction of the change, so that there is neither a change without its entry nor an entry without its change.

Who is acting is known from where the code runs: within a request it is its caller (``accounts.middleware``), elsewhere the
process itself: ``service:supervisor``, or ``command:root`` for a command that somebody of that name runs on this machine.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any

import psutil
from django.db.models import ForeignKey, Model

logger = logging.getLogger(__name__)

CHANGED = "changed"  # stands for a secret: that it changed is told, never from what or to what
LONGEST_NAME = 200
LONGEST_VALUE = 500
MOST_FIELDS = 60
DEEPEST = 4

SECRET_WORDS = frozenset(
    {"password", "passwords", "passphrase", "secret", "secrets", "token", "key", "hash", "nonce", "otp", "totp", "seed"}
    | {"credential", "credentials", "cookie", "session", "authorization", "signature", "private"}
)
ABOUT_A_SECRET = frozenset({"id", "name", "price", "rate"})  # last words that make a name harmless: key_id, TOKEN_RATE
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
NOT_STORED = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")  # what no database, or no terminal, should get
NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
EMPTY: tuple[Any, ...] = (None, "", [], {})
OF_NO_INTEREST = frozenset({"last_login", "date_joined"})

Fields = Mapping[str, Any]


class Secret(str):
    """A value that is never told, whatever its field is called."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Actor:
    """``name`` is a user name, or ``kind:name`` for what is no person: a colon is in no user name that a person can take."""

    user_id: int | None = None
    name: str = ""
    key_id: int | None = None
    address: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """``changes``: field → [before, after], or ``CHANGED`` for a secret. All of it is fit to be stored."""

    actor: Actor
    action: str
    target_type: str
    target_id: str
    target_name: str
    changes: dict[str, Any]


# -- who ---------------------------------------------------------------------------------------------------------------
_source: ContextVar[Callable[[], Actor] | None] = ContextVar("audit_actor", default=None)
_process: Actor | None = None


def actor() -> Actor:
    source = _source.get()
    return source() if source else _process or _own_process()


@contextlib.contextmanager
def acting(source: Callable[[], Actor]) -> Iterator[None]:
    """``source`` is asked when something is recorded: a request knows its user only when it has been authenticated."""
    before = _source.set(source)
    try:
        yield
    finally:
        _source.reset(before)


@contextlib.contextmanager
def acting_as(user: Model) -> Iterator[None]:
    """For somebody who is not logged in yet but proves to be this user: who registers, logs in, resets a password."""
    known = replace(actor(), user_id=user.pk, name=str(user), key_id=None)
    with acting(lambda: known):
        yield


def run_as_service(name: str) -> None:
    """This process, begun as somebody's command, goes on by itself."""
    global _process
    _process = Actor(name=f"service:{name}")


def _own_process() -> Actor:
    process = os.environ.get("LLM_PROCESS")  # what ``serve`` calls its children
    if process:
        return Actor(name=_name(f"service:{process}"))
    # Not from the environment: anybody could write there what they like.
    return Actor(name=_name(f"command:{psutil.Process().username()}"))


# -- what ---------------------------------------------------------------------------------------------------------------
_sink: Callable[[Sequence[Event]], None] | None = None
_gathered: ContextVar[list[Event] | None] = ContextVar("audit_gathered", default=None)
_types: dict[str, type[Model]] = {}


def register_sink(sink: Callable[[Sequence[Event]], None]) -> None:
    global _sink
    _sink = sink


def register_type(name: str, model: type[Model]) -> None:
    """Entries about rows of ``model`` have this ``target_type``, and their actions begin with it."""
    _types[name] = model


def model_of(target_type: str) -> type[Model] | None:
    return _types.get(target_type)


def type_of(model: type[Model]) -> str:
    return next((name for name, known in _types.items() if issubclass(model, known)), model._meta.model_name or "")


def record(
    action: str,
    target_type: str,
    target_id: object = "",
    target_name: object = "",
    before: Fields | None = None,
    after: Fields | None = None,
    *,
    event: bool = False,
) -> None:
    """``before`` and ``after`` are fields by name; only what differs is kept, and when nothing does, nothing is recorded.

    Something that happened without changing a field is told with neither of them, or with ``event``.
    """
    changes = difference(before or {}, after or {})
    if not changes and not event and not (before is None and after is None):
        return
    told = Event(actor(), action, target_type, _name(target_id, 64), _name(target_name), changes)
    gathered = _gathered.get()
    if gathered is not None:
        gathered.append(told)
    else:
        _hand_over([told])


def _hand_over(events: Sequence[Event]) -> None:
    if _sink is not None:
        _sink(events)
        return
    for told in events:
        logger.error("nobody takes audit entries: %s %s %s", told.actor.name, told.action, told.target_name)


@contextlib.contextmanager
def in_one_go() -> Iterator[None]:
    """What is recorded inside is written at the end, together: for a change of many rows. Within the change's transaction."""
    gathered: list[Event] = []
    token = _gathered.set(gathered)
    try:
        yield
    finally:
        _gathered.reset(token)
    _hand_over(gathered)


def on(
    row: Model, verb: str, before: Fields | None = None, after: Fields | None = None, *, event: bool = False
) -> None:
    """``record`` for a row of a registered table: ``on(user, "approve", …)`` is the action ``user.approve``."""
    kind = type_of(row._meta.model)  # a request's user is a lazy object, whose type tells nothing
    record(f"{kind}.{verb}", kind, row.pk, row, before, after, event=event)


def fields_of(row: Model, *names: str) -> dict[str, Any]:
    """``names`` of a row, or all that can be edited, as ``record`` takes them. Related rows are told by their names."""
    fields = {field.name: field for field in row._meta.concrete_fields}
    wanted = names or [
        name
        for name, field in fields.items()
        if field.editable and not field.primary_key and name not in OF_NO_INTEREST
    ]
    return {name: _value_of(row, fields.get(name), name) for name in wanted}


def _value_of(row: Model, field: Any, name: str) -> Any:
    if isinstance(field, ForeignKey):
        return None if getattr(row, field.attname) is None else str(getattr(row, name))
    return getattr(row, name)


# -- differences -----------------------------------------------------------------------------------------------------------
def difference(before: Fields, after: Fields) -> dict[str, Any]:
    """Field → [before, after]; ``CHANGED`` for a secret. Empty values of all kinds are one, and what was not there was off."""
    old, new = _flat(before), _flat(after)
    names = [name for name in {**old, **new} if _differ(old.get(name), new.get(name))]
    changes = {_name(name): _shown_change(name, old.get(name), new.get(name)) for name in names[:MOST_FIELDS]}
    if len(names) > MOST_FIELDS:
        changes["…"] = [None, f"+{len(names) - MOST_FIELDS}"]
    return changes


def is_secret(name: str) -> bool:
    """By its name, ``apiKey`` as well as ``api_key``, and everything inside something that is one."""
    return any(_is_secret_part(part) for part in name.split("."))


def _is_secret_part(name: str) -> bool:
    words = [word.lower() for word in WORD.findall(name)]
    return bool(words) and words[-1] not in ABOUT_A_SECRET and not SECRET_WORDS.isdisjoint(words)


def _differ(old: Any, new: Any) -> bool:
    if (old in EMPTY and new in EMPTY) or (old is None and new is False):
        return False
    return bool(old != new) or isinstance(old, bool) != isinstance(new, bool)


def _shown_change(name: str, old: Any, new: Any) -> Any:
    # Yes and no give no secret away, and "must change password" is worth knowing.
    if is_secret(name) and not all(value is None or isinstance(value, bool) for value in (old, new)):
        return CHANGED
    if isinstance(old, Secret) or isinstance(new, Secret):
        return CHANGED
    return [_shown(old), _shown(new)]


def _flat(fields: Fields, prefix: str = "", depth: int = 1) -> dict[str, Any]:
    """``{"extra": {"a": 1}}`` as ``{"extra.a": 1}``, so that of a nested value too only what differs is told."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and depth < DEEPEST:
            flat |= _flat(value, f"{path}.", depth + 1)
        else:
            flat[path] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    match value:
        case None | bool() | int() | Secret():
            return value
        case float():
            return value if abs(value) < float("inf") else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case Mapping():
            return {str(name): CHANGED if is_secret(str(name)) else _plain(inner) for name, inner in value.items()}
        case str():
            return str.__str__(value)
        case set() | frozenset():
            return sorted((_plain(inner) for inner in value), key=str)
        case Sequence():
            return [_plain(inner) for inner in value]
    return str(value)


def _shown(value: Any) -> Any:
    if isinstance(value, list | dict):
        text = json.dumps(value, ensure_ascii=False)
        clean = text == NOT_STORED.sub("", text) and "\\u0000" not in text
        return value if clean and len(text) <= LONGEST_VALUE else _cut(text, LONGEST_VALUE)
    return _cut(value, LONGEST_VALUE) if isinstance(value, str) else value


def _cut(text: str, most: int) -> str:
    """What is left out shows as its length: ``… (+734)``."""
    clean = NOT_STORED.sub("\ufffd", text)
    return clean if len(clean) <= most else f"{clean[:most]}… (+{len(clean) - most})"


def _name(name: object, most: int = LONGEST_NAME) -> str:
    text = NOT_IN_NAMES.sub("\ufffd", str(name))
    return text if len(text) <= most else text[: most - 1] + "…"
