"""Who changed what since model_config.json and the database last agreed: three sides of one entry, key by key. Pure.

``base`` is the entry as it stood then. A key that one side alone has changed goes to the other side; one that both have changed,
to different values, is a conflict, and stays as it is on either side until a person decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models_app.config_file import KEYS, BadValue, Key

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Merge:
    """Names of keys."""

    from_file: tuple[str, ...] = ()
    from_here: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


def merge(base: Raw, file: Raw, ours: Mapping[str, Any]) -> Merge:
    """``ours``: by the names of ModelConfig's fields. Without a ``base`` the file counts as the newer one."""
    sides: dict[str, list[str]] = {"file": [], "here": [], "both": []}
    for name, key in KEYS.items():
        if (side := _changed_in(name, key, base, file, ours[key.field])) is not None:
            sides[side].append(name)
    return Merge(*(tuple(names) for names in sides.values()))


def _changed_in(name: str, key: Key, base: Raw, file: Raw, here: Any) -> str | None:
    there = value_in(file, name)
    if there == here:
        return None
    if not base or value_in(base, name) == here:
        return "file"
    return "here" if value_in(base, name) == there else "both"


def value_in(entry: Raw, name: str) -> Any:
    """What a key of an entry says, its default when it is not there; as it stands when it is no good value."""
    key = KEYS[name]
    if name not in entry:
        return key.default
    try:
        return key.check(entry[name])
    except BadValue:
        return entry[name]


def keeping(keys: tuple[str, ...], of: Raw, entry: Raw) -> dict[str, Any]:
    """``entry`` with these keys as they are in ``of``."""
    kept = {name: of[name] for name in keys if name in of}
    return {**{name: value for name, value in entry.items() if name not in keys or name in kept}, **kept}
