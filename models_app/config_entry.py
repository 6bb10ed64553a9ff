"""A model's entry in ``model_config.json``: taking over what the file has changed, writing back what was changed here.

When the file cannot be written a change holds all the same and the log says so; a file with a mistake in it is never
overwritten.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from filelock import FileLock

from models_app import config_file, config_merge
from models_app.config_file import ConfigFile, Entry
from models_app.models import ModelConfig

logger = logging.getLogger(__name__)
LOCK_SECONDS = 30
FIELDS = frozenset(config_file.FIELD_TO_KEY) | {"extra"}


def values_of(model: ModelConfig) -> dict[str, Any]:
    return {name: getattr(model, name) for name in sorted(FIELDS)}


def take_over(model: ModelConfig, entry: Entry, but: Iterable[str] = ()) -> bool:
    """What only the file has changed, without saving it. ``but``: fields that it does not take."""
    merged = merge(model, entry.raw)
    taken = [name for name in merged.from_file if field_of(name) not in but]
    for name in taken:
        setattr(model, field_of(name), entry.values[field_of(name)])
    changed = bool(taken) or model.extra != entry.values["extra"]
    model.extra = entry.values["extra"]
    # Of the keys that are not settled yet, what both sides last agreed on stays known.
    left = (name for name in merged.from_file if name not in taken)
    open_keys = (*merged.from_here, *merged.conflicts, *left)
    model.file_entry = config_merge.keeping(open_keys, model.file_entry, entry.raw)
    return changed


def field_of(key: str) -> str:
    return config_file.KEYS[key].field


def merge(model: ModelConfig, raw: dict[str, Any]) -> config_merge.Merge:
    return config_merge.merge(model.file_entry, raw, values_of(model))


def write_back(model: ModelConfig) -> bool:
    """Its entry as it is here, but for keys that the file has newer values of; whether the file has taken it. The caller holds
    ``file_lock``.

    ``file_entry`` is set only after the file is written: else the next sync would take the file's old value for a new one.
    """
    base = model.file_entry
    left: tuple[str, ...] = ()

    def change(old: dict[str, Any] | None) -> dict[str, Any] | None:
        nonlocal left
        if old is None and base:
            return None  # somebody has taken it out: the next sync ends the model
        if old and base:
            merged = merge(model, old)
            left = (*merged.conflicts, *merged.from_file)
        return config_merge.keeping(left, old or {}, config_file.entry_for(values_of(model), old))

    entry = replace(model.name, change)
    if entry is None:
        return False
    model.file_entry = config_merge.keeping(left, base, entry)
    ModelConfig.objects.filter(pk=model.pk).update(file_entry=model.file_entry)
    return True


def remove(name: str) -> None:
    """Out of the file; where it cannot be written, the removal is remembered until it can. The caller holds ``file_lock``."""
    replace(name, lambda old: None)
    config = config_file.read(settings.MODEL_CONFIG_PATH)
    if any(entry.name == name for entry in config.entries) or (config.document is None and not config.missing):
        _remember(removed() | {name})


def restored(name: str) -> None:
    """There is a model of that name again."""
    _remember(removed() - {name})


def removed() -> set[str]:
    """Models that are gone and that the file may still have."""
    try:
        return set(json.loads(_removed_path().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return set()


def _remember(names: set[str]) -> None:
    if names != removed():
        with contextlib.suppress(OSError):
            _removed_path().write_text(json.dumps(sorted(names)), encoding="utf-8")


def _removed_path() -> Path:
    folder: Path = settings.RUN_DIR
    return folder / "removed_models.json"


def drop_removed(config: ConfigFile) -> None:
    """Entries of removed models do not make them again, and leave the file as soon as it can be written."""
    for name in removed():
        if any(entry.name == name for entry in config.entries):
            config.entries = [entry for entry in config.entries if entry.name != name]
            replace(name, lambda old: None)
        elif config.document is not None:
            restored(name)


def replace(name: str, change: Callable[[dict[str, Any] | None], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Replaces, adds or removes one entry; the others, bad ones too, stay as they are. The new entry, if it was written."""
    path: Path = settings.MODEL_CONFIG_PATH
    config = config_file.read(path)
    if config.document is None and not config.missing:
        log_not_written(path, config.problems[0].reason)
        return None
    document = config.document or {config_file.LIST: []}
    entries: list[Any] = document[config_file.LIST]
    place = next((i for i, raw in enumerate(entries) if isinstance(raw, dict) and raw.get("modelName") == name), None)
    entry = change(None if place is None else entries[place])
    entries[len(entries) if place is None else place : len(entries) if place is None else place + 1] = (
        [entry] if entry else []
    )
    try:
        config_file.write(path, document)
    except OSError as error:
        log_not_written(path, error)
        return None
    return entry


def log_not_written(path: Path, why: object) -> None:
    logger.warning("%s could not be written; the change holds all the same: %s", path.name, why)


def file_lock() -> FileLock:
    """One writer of the file at a time, over all our processes."""
    settings.RUN_DIR.mkdir(parents=True, exist_ok=True)
    return FileLock(settings.RUN_DIR / "model_config.lock", timeout=LOCK_SECONDS)
