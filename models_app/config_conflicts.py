"""Where model_config.json and the database differ, what a person decides about it, and the file handed out and taken in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from django.conf import settings
from django.utils.translation import gettext as _

from llmplatform.lib import audit
from llmplatform.lib.errors import ApiError
from models_app import config_entry, config_file, config_sync, names, services
from models_app.config_file import KEYS, LIST, ConfigFile, Entry, Problem
from models_app.config_report import SyncReport
from models_app.models import ModelConfig

Keep = Literal["file", "ours"]


class NoConflict(ApiError):
    def __init__(self) -> None:
        message = _("This was decided, or one of the two has changed again; look again.")
        super().__init__("no_conflict", message, 409)


@dataclass(frozen=True)
class Conflict:
    """Both sides' values of a key that both have changed."""

    model: str
    key: str
    file: Any
    ours: Any


@dataclass(frozen=True)
class Differences:
    """``waiting_in_file`` and ``waiting_here``: names of models of which one side does not know a change yet."""

    problems: list[Problem]
    missing: bool
    conflicts: list[Conflict]
    waiting_in_file: list[str]
    waiting_here: list[str]

    @property
    def is_in_step(self) -> bool:
        return not (self.problems or self.missing or self.conflicts or self.waiting_in_file or self.waiting_here)


def differences() -> Differences:
    """Of the file as it is now. One query."""
    config = config_file.read(settings.MODEL_CONFIG_PATH)
    models = {model.name: model for model in ModelConfig.objects.all()}
    result = Differences(config.problems, config.missing, [], [], [])
    for entry in config.entries:
        model = models.get(entry.name)
        if model is None:
            result.waiting_in_file.append(entry.name)
            continue
        merged = config_entry.merge(model, entry.raw)
        result.conflicts.extend(_conflict(model, entry, key) for key in merged.conflicts)
        if merged.from_file or model.extra != entry.values["extra"]:
            result.waiting_in_file.append(model.name)
        if merged.from_here:
            result.waiting_here.append(model.name)
    return result


def found() -> list[Conflict]:
    return differences().conflicts


def _conflict(model: ModelConfig, entry: Entry, key: str) -> Conflict:
    field = KEYS[key].field
    return Conflict(model.name, key, entry.values[field], getattr(model, field))


# -- deciding --------------------------------------------------------------------------------------------------------------
def decide(conflict: Conflict, keep: Keep) -> None:
    """One side gets what the other has. Raises NoConflict when that is not what is there any more, ValidationError."""
    with config_entry.file_lock():
        if conflict not in found():
            raise NoConflict
        model = ModelConfig.objects.get(name=conflict.model)
        field, before = KEYS[conflict.key].field, config_entry.values_of(model)
        # From here on the file's value is what both had: so the other side's is the newer one.
        model.file_entry = {**model.file_entry, conflict.key: conflict.file}
        if keep == "file":
            setattr(model, field, conflict.file)
            services.validate(model, [field])
            services.keep_last_version(model, before)
        with names.one_writer_wins():
            losers = services.save(model, [field])
            audit.on(model, "sync", before, config_entry.values_of(model), event=True)
        for one in (model, *losers):
            config_entry.write_back(one)


# -- handed out and taken in -----------------------------------------------------------------------------------------------
def exported() -> str:
    """The file as the database has it; what this version does not know stands where it stood."""
    config = config_file.read(settings.MODEL_CONFIG_PATH)
    document = config.document or {LIST: []}
    models = {model.name: model for model in ModelConfig.objects.all()}
    entries = [_exported(raw, models) for raw in document[LIST]]
    entries += [config_file.entry_for(config_entry.values_of(model)) for model in models.values()]
    return json.dumps({**document, LIST: entries}, indent=2, ensure_ascii=False) + "\n"


def _exported(raw: Any, models: dict[str, ModelConfig]) -> Any:
    name = raw.get("modelName") if isinstance(raw, dict) else None
    model = models.pop(name, None) if isinstance(name, str) else None
    return raw if model is None else config_file.entry_for(config_entry.values_of(model), raw)


def take_in(content: bytes) -> SyncReport:
    """Adds and changes the models that the file names; others stay as they are, and so do keys that it does not name. Nothing
    is done when there is a mistake in it."""
    return config_sync.take_in(_read(content))


def _read(content: bytes) -> ConfigFile:
    if len(content) > config_file.MAX_BYTES:
        return ConfigFile(problems=[Problem(1, _("is too large to be a model configuration"))])
    try:
        return config_file.parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        reason = _("is not UTF-8 text (byte %(at)d); save it as UTF-8") % {"at": error.start}
        return ConfigFile(problems=[Problem(1, reason)])
