"""What a person can ask for about models. Writes what is wanted; the supervisor makes it so.

Each change goes into the database and, so that the file stays true, into ``model_config.json``. When the file cannot be
written the change holds all the same and the log says so; a file with a mistake in it is never overwritten.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext as _
from filelock import FileLock

from llmplatform.lib import audit
from llmplatform.lib.errors import ApiError
from models_app import config_file, gguf, model_files
from models_app.config_file import ConfigFile, Entry, Problem
from models_app.models import ModelConfig

logger = logging.getLogger(__name__)
LOCK_SECONDS = 30
FIELDS = frozenset(config_file.FIELD_TO_KEY) | {"extra"}
# Kinds of models that turn a text into an embedding and write nothing.
EMBEDDING_ARCHITECTURES = ("bert", "nomic-bert", "jina-bert", "gte", "t5encoder", "gemma-embedding")


class ModelNotFound(ApiError):
    def __init__(self, name: str) -> None:
        super().__init__("model_not_found", _("There is no model “%(name)s”.") % {"name": name}, 404)


class ModelExists(ApiError):
    def __init__(self, name: str) -> None:
        super().__init__("model_exists", _("There is already a model “%(name)s”.") % {"name": name}, 409)


@dataclass
class SyncReport:
    """What ``sync_config_file`` did. ``problems`` are (line, reason) pairs."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    written: bool = False


# -- from the file to the database -----------------------------------------------------------------------------------------
def sync_config_file() -> SyncReport:
    """Takes over what changed in the file since it was last read; a change made elsewhere meanwhile is kept.

    Without a file, one is written for the models that are known and the GGUF files that lie in the models folder.
    """
    with _file_lock():
        path: Path = settings.MODEL_CONFIG_PATH
        config = config_file.read(path)
        report = SyncReport(problems=config.problems)
        if config.missing:
            report.written = _write_first_file(path)
            config = config_file.read(path)
        if config.document is not None:
            _apply(config, report)
    for problem in report.problems:  # on the terminal, whoever asked for this shows them
        logger.error("%s, line %d: %s", path.name, problem.line, problem.reason, extra={"console": False})
    return report


@transaction.atomic
def _apply(config: ConfigFile, report: SyncReport) -> None:
    known = {model.name: model for model in ModelConfig.objects.all()}
    for entry in config.entries:
        model = known.get(entry.name)
        if model is None:
            model = ModelConfig.objects.create(**entry.values, file_entry=entry.raw)
            audit.on(model, "import", after=_values(model))
            report.added.append(entry.name)
        elif _apply_entry(model, entry):
            report.changed.append(entry.name)
    # With an entry whose name cannot be read, nobody knows whose it was: then nothing counts as removed.
    if config.has_nameless:
        return
    present = {entry.name for entry in config.entries} | config.names_of_bad
    for name, model in known.items():
        if name not in present and model.file_entry:
            audit.on(model, "sync", {"active": model.active}, {"active": False})
            model.active, model.file_entry = False, {}
            model.save()
            report.removed.append(name)


def _apply_entry(model: ModelConfig, entry: Entry) -> bool:
    old = model.file_entry
    if old == entry.raw:
        return False
    before = _values(model)
    changed = False
    for name, key in config_file.KEYS.items():
        same = entry.raw.get(name) == old.get(name) and (name in entry.raw) == (name in old)
        if not (old and same) and getattr(model, key.field) != entry.values[key.field]:
            setattr(model, key.field, entry.values[key.field])
            changed = True
    changed = changed or model.extra != entry.values["extra"]
    model.extra, model.file_entry = entry.values["extra"], entry.raw
    model.save()
    audit.on(model, "sync", before, _values(model))
    return changed


# -- the first file ----------------------------------------------------------------------------------------------------------
def _write_first_file(path: Path) -> bool:
    models = list(ModelConfig.objects.all())
    entries = [config_file.entry_for(_values(model)) for model in models]
    taken, files = {model.name for model in models}, {model.file for model in models}
    for file in _gguf_files():
        if file.name not in files:
            name = _free_name(file.stem, taken)
            taken.add(name)
            entries.append(entry_for_file(file, name))
    if not entries:  # so that a file put there later is still found at the next start
        return False
    try:
        config_file.write(path, {config_file.LIST: entries})
    except OSError as error:
        _log_not_written(path, error)
        _take_entries(entries)
        return False
    return True


def _take_entries(entries: list[dict[str, Any]]) -> None:
    """The folder is read-only: the models found run all the same."""
    for raw in entries:
        values = config_file.values_of(raw)
        with transaction.atomic():
            model, created = ModelConfig.objects.get_or_create(name=values["name"], defaults=values)
            if created:
                audit.on(model, "import", after=_values(model))


def _gguf_files() -> list[Path]:
    """Starter model first, then by name; of a model in parts only the first part."""
    files = [file for file in settings.MODELS_PATH.glob("*.gguf") if file.is_file()]
    first_parts = [file for file in files if (part := gguf.SPLIT_NAME.search(file.name)) is None or int(part[1]) == 1]
    return sorted(first_parts, key=lambda file: (not file.name.startswith("SmolLM2-135M"), file.name))


def _free_name(stem: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9._]+", "-", stem.lower()).strip("._-")[:120] or "model"
    return next(name for number in range(1, 1000) if (name := base if number == 1 else f"{base}-{number}") not in taken)


def entry_for_file(file: Path, name: str, **settings_: Any) -> dict[str, Any]:
    """An entry for a GGUF file, with what the file itself says."""
    values: dict[str, Any] = {key.field: key.default for key in config_file.KEYS.values()}
    try:
        facts = gguf.read_facts(file)
        values["embeddings"] = facts.architecture in EMBEDDING_ARCHITECTURES or facts.pooling
        values["description"] = " ".join(filter(None, (facts.name, facts.quantization)))
    except (gguf.GgufError, OSError):  # it gets its entry all the same; starting it says what is wrong
        pass
    values.update(name=name, file=file.name, **settings_)
    if file.name.startswith("SmolLM2-135M-Instruct"):
        values.update(STARTER_SETTINGS)
    return config_file.entry_for(values)


# Small models repeat themselves soon; these keep the starter model's answers readable.
STARTER_SETTINGS = {
    "name": "smollm2-135m-instruct",
    "context_length": 4096,
    "max_tokens": 1024,
    "temperature": 0.2,
    "top_p": 0.9,
    "repeat_penalty": 1.1,
    "slots": 2,
    "description": "SmolLM2 135M Instruct (Apache-2.0)",
}


# -- from the database to the file -------------------------------------------------------------------------------------------
def set_active(name: str, active: bool, *, asked: bool = True) -> ModelConfig:
    """Start or stop. A policy of "off" would keep it from starting, so starting sets it back. Raises ModelNotFound.

    ``asked`` is False when somebody asked for something else that needs this first.
    """
    fields: dict[str, Any] = {"active": active}
    if active and _get(name).policy == ModelConfig.Policy.OFF:
        fields["policy"] = ModelConfig.Policy.ALWAYS
    return _update(name, fields, "start" if active else "stop", event=asked)


def request_restart(name: str) -> ModelConfig:
    """Its replicas are replaced, one after the other. Raises ModelNotFound."""
    with transaction.atomic():
        if not ModelConfig.objects.filter(name=name).update(restart_number=F("restart_number") + 1):
            raise ModelNotFound(name)
        model = _get(name)
        audit.on(model, "restart")
    return model


def create_model(fields: dict[str, Any]) -> ModelConfig:
    """``fields`` by the names of ModelConfig's fields. Raises ModelExists, ValidationError."""
    with _file_lock():
        model = ModelConfig(**_checked_names(fields))
        if ModelConfig.objects.filter(name=model.name).exists():
            raise ModelExists(model.name)
        _validate(model)
        with transaction.atomic():
            model.save(force_insert=True)
            audit.on(model, "create", after=_values(model))
        _write_back(model.name, lambda old: config_file.entry_for(_values(model), old), model)
    return model


def update_model(name: str, fields: dict[str, Any]) -> ModelConfig:
    """``fields`` by the names of ModelConfig's fields; the name itself stays. Raises ModelNotFound, ValidationError."""
    return _update(name, fields, "update")


def _update(name: str, fields: dict[str, Any], verb: str, *, event: bool = False) -> ModelConfig:
    with _file_lock():
        model = _get(name)
        before = _values(model)
        for field_name, value in _checked_names(fields).items():
            if field_name == "name" and value != name:
                raise ValidationError({"name": _("A model keeps its name; make a new one instead.")})
            setattr(model, field_name, value)
        _validate(model)
        with transaction.atomic():
            model.save(update_fields=[*fields, "updated_at"])
            audit.on(model, verb, before, _values(model), event=event)
        _write_back(name, lambda old: config_file.entry_for(_values(model), old), model)
    return model


def delete_model(name: str) -> None:
    """Out of the configuration; its file stays where it is. Raises ModelNotFound."""
    with _file_lock():
        model = _get(name)
        with transaction.atomic():
            audit.on(model, "delete", before=_values(model))
            model.delete()
        _write_back(name, lambda old: None, None)


def _get(name: str) -> ModelConfig:
    model = ModelConfig.objects.filter(name=name).first()
    if model is None:
        raise ModelNotFound(name)
    return model


def _checked_names(fields: dict[str, Any]) -> dict[str, Any]:
    unknown = set(fields) - FIELDS
    if unknown:
        raise ValidationError({name: _("There is no such field.") for name in sorted(unknown)})
    return fields


def _validate(model: ModelConfig) -> None:
    model.full_clean(validate_unique=False)
    errors = {}
    for key in config_file.KEYS.values():
        try:
            key.check(getattr(model, key.field))
        except config_file.BadValue as error:
            errors[key.field] = str(error)
    try:
        model_files.locate(model.file, model.path)
    except (model_files.UnsafePath, OSError, RuntimeError):
        errors["file"] = _("This file lies outside of the models folder; name a file inside it.")
    if errors:
        raise ValidationError(errors)


def _values(model: ModelConfig) -> dict[str, Any]:
    return {name: getattr(model, name) for name in sorted(FIELDS)}


def _write_back(
    name: str, change: Callable[[dict[str, Any] | None], dict[str, Any] | None], model: ModelConfig | None
) -> None:
    """Replaces, adds or removes one entry; the others, bad ones too, stay as they are.

    ``file_entry`` is set only after the file is written: else the next sync would take the file's old value for a new one.
    """
    path: Path = settings.MODEL_CONFIG_PATH
    config = config_file.read(path)
    if config.document is None and not config.missing:
        _log_not_written(path, config.problems[0].reason)
        return
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
        _log_not_written(path, error)
        return
    if model is not None and entry is not None:
        model.file_entry = entry
        ModelConfig.objects.filter(pk=model.pk).update(file_entry=entry)


def _log_not_written(path: Path, why: object) -> None:
    logger.warning("%s could not be written; the change holds all the same: %s", path.name, why)


def _file_lock() -> FileLock:
    """One writer of the file at a time, over all our processes."""
    settings.RUN_DIR.mkdir(parents=True, exist_ok=True)
    return FileLock(settings.RUN_DIR / "model_config.lock", timeout=LOCK_SECONDS)
