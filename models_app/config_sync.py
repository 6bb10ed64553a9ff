"""``model_config.json`` and the database are brought together, and a first file is written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction

from llmplatform.lib import audit
from models_app import config_entry, config_file, config_report, found_files, names, services
from models_app.config_file import KEYS, ConfigFile, Entry, Problem
from models_app.config_report import SyncReport
from models_app.models import ModelConfig

logger = logging.getLogger(__name__)


# -- from the file to the database -----------------------------------------------------------------------------------------
def sync_config_file() -> SyncReport:
    """Takes over what changed in the file since it was last read, and writes what was changed elsewhere meanwhile; what was
    changed on both sides stays as it is on either (``config_conflicts``).

    Without a file, one is written for the models that are known and the GGUF files that lie in the models folder.
    """
    with config_entry.file_lock():
        path: Path = settings.MODEL_CONFIG_PATH
        config = config_file.read(path)
        report = SyncReport(problems=config.problems)
        if config.missing:
            report.written = _write_first_file(path)
            config = config_file.read(path)
        config_entry.drop_removed(config)
        if config.document is not None:
            try:
                with names.one_writer_wins():
                    _apply(config, report)
                _write_what_is_missing(config, report)
            except ValidationError as error:
                report = SyncReport(problems=[*config.problems, Problem(1, " ".join(error.messages))])
    config_report.keep(report)
    services.tell_supervisor()
    for problem in report.problems:  # on the terminal, whoever asked for this shows them
        logger.error("%s, line %d: %s", path.name, problem.line, problem.reason, extra={"console": False})
    return report


def _apply(config: ConfigFile, report: SyncReport) -> None:
    known = {model.name: model for model in ModelConfig.objects.all()}
    # With an entry whose name cannot be read, nobody knows whose it was: then nothing counts as removed.
    present = known.keys() if config.has_nameless else {entry.name for entry in config.entries} | config.names_of_bad
    for name, model in known.items():
        if name not in present and model.file_entry:
            _remove(model)
            report.removed.append(name)
    changes = {entry.name: _changes(known.get(entry.name), entry) for entry in config.entries}
    _refuse_entries(config, known, changes)
    default = next((entry.name for entry in config.entries if changes[entry.name].get("is_default")), None)
    for loser in services.take_default(default) if default is not None else ():
        known[loser.name].is_default = False
    written = []
    for entry in config.entries:
        old = known.get(entry.name)
        if old is None:
            model = ModelConfig.objects.create(**entry.values, file_entry=entry.raw)
            audit.on(model, "import", after=config_entry.values_of(model))
            report.added.append(entry.name)
        else:
            model = old
            report.conflicts += [f"{entry.name}: {name}" for name in config_entry.merge(model, entry.raw).conflicts]
            if _apply_entry(model, entry):
                report.changed.append(entry.name)
        if old is None or "aliases" in changes[entry.name]:
            written.append(model)
    names.claim(written)


def _remove(model: ModelConfig) -> None:
    """It is no longer in the file: it stops, and what others may want of it is free again."""
    before = config_entry.values_of(model)
    model.active, model.is_default, model.aliases, model.traffic, model.file_entry = False, False, [], {}, {}
    model.save()
    names.claim([model])
    audit.on(model, "sync", before, config_entry.values_of(model))


def _changes(model: ModelConfig | None, entry: Entry) -> dict[str, Any]:
    """What the entry changes, by field."""
    if model is None:
        return entry.values
    taken = map(config_entry.field_of, config_entry.merge(model, entry.raw).from_file)
    return {field: entry.values[field] for field in taken}


def _refuse_entries(config: ConfigFile, known: dict[str, ModelConfig], changes: dict[str, dict[str, Any]]) -> None:
    """Takes out the entries whose names or shares do not go together with the others."""
    there = {name: names.values_of(model) for name, model in known.items()}
    wanted = {
        name: {**there.get(name, {}), **{field: changed[field] for field in names.FIELDS if field in changed}}
        for name, changed in changes.items()
        if changed.keys() & set(names.FIELDS)
    }
    refused = names.refused(there, wanted)
    for entry in config.entries:
        for field_name, problem in refused.get(entry.name, {}).items():
            reason = f"{entry.name}: {config_file.FIELD_TO_KEY[field_name]} {problem}"
            config.problems.append(Problem(entry.line, reason))
    config.entries = [entry for entry in config.entries if entry.name not in refused]


def _apply_entry(model: ModelConfig, entry: Entry) -> bool:
    before, known = config_entry.values_of(model), model.file_entry
    changed = config_entry.take_over(model, entry)
    if changed or model.file_entry != known:
        services.keep_last_version(model, before)
        model.save()
        audit.on(model, "sync", before, config_entry.values_of(model))
    return changed


def _write_what_is_missing(config: ConfigFile, report: SyncReport) -> None:
    """Changes made here while the file could not be written."""
    models = {model.name: model for model in ModelConfig.objects.all()}
    for entry in config.entries:
        model = models.get(entry.name)
        if model is not None and config_entry.merge(model, entry.raw).from_here and config_entry.write_back(model):
            report.written_back.append(model.name)


# -- a file from elsewhere ---------------------------------------------------------------------------------------------------
def take_in(config: ConfigFile) -> SyncReport:
    """Adds and changes the models that it names, all of them or, when anything is wrong with one, none."""
    report = SyncReport(problems=config.problems)
    with config_entry.file_lock():
        known = {model.name: model for model in ModelConfig.objects.all()}
        changes = {entry.name: _imported(known.get(entry.name), entry) for entry in config.entries}
        changes = {name: fields for name, fields in changes.items() if fields}
        if not report.problems:
            _refuse_entries(config, known, changes)
        if report.problems:
            return report
        try:
            with names.one_writer_wins():
                written = _write_imported(known, changes, report)
        except ValidationError as error:
            return SyncReport(problems=[Problem(1, " ".join(error.messages))])
        for model in written:
            config_entry.write_back(model)
    services.tell_supervisor()
    return report


def _imported(model: ModelConfig | None, entry: Entry) -> dict[str, Any]:
    """What it changes, by field; keys that it does not name stay as they are."""
    if model is None:
        return entry.values
    named = {field: entry.values[field] for name in entry.raw if name in KEYS for field in [KEYS[name].field]}
    named["extra"] = {**model.extra, **entry.values["extra"]}
    return {field: value for field, value in named.items() if getattr(model, field) != value}


def _write_imported(
    known: dict[str, ModelConfig], changes: dict[str, dict[str, Any]], report: SyncReport
) -> list[ModelConfig]:
    """Those that are written, and those that are the default no more. Raises ValidationError."""
    default = next((name for name, fields in changes.items() if fields.get("is_default")), None)
    losers = services.take_default(default) if default is not None else []
    for loser in losers:
        if loser.name in known:
            known[loser.name].is_default = False
    written = []
    for name, fields in changes.items():
        model = known.get(name) or ModelConfig(name=name)
        is_new = model.pk is None
        before = {} if is_new else config_entry.values_of(model)
        for field, value in fields.items():
            setattr(model, field, value)
        services.validate(model, fields.keys() - names.FIELDS)
        if not is_new:
            services.keep_last_version(model, before)
        model.save()
        config_entry.restored(name)
        audit.on(model, "import", before or None, config_entry.values_of(model))
        (report.added if is_new else report.changed).append(name)
        written.append(model)
    names.claim(written)
    return [*written, *(loser for loser in losers if loser.name not in changes)]


# -- the first file ----------------------------------------------------------------------------------------------------------
def _write_first_file(path: Path) -> bool:
    models = list(ModelConfig.objects.all())
    entries = [config_file.entry_for(config_entry.values_of(model)) for model in models]
    taken = {name for model in models for name in (model.name, *model.aliases)}
    files = {model.file for model in models}
    for file in found_files.gguf_files():
        if file.name not in files:
            name = found_files.free_name(file.stem, taken)
            taken.add(name)
            entries.append(found_files.entry_for_file(file, name))
    if not entries:  # so that a file put there later is still found at the next start
        return False
    try:
        config_file.write(path, {config_file.LIST: entries})
    except OSError as error:
        config_entry.log_not_written(path, error)
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
                names.claim([model])
                audit.on(model, "import", after=config_entry.values_of(model))
