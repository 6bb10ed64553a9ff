"""What a person can ask for about models. Writes what is wanted; the supervisor makes it so.

Each change goes into the database and, so that the file stays true, into ``model_config.json`` (``config_entry``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext as _

from llmplatform.lib import audit, knock
from llmplatform.lib.errors import ApiError
from models_app import config_entry, config_file, demand, model_files, names
from models_app.command_line import Wanted
from models_app.models import ModelConfig, Replica
from models_app.states import State

# What makes a version of a model: a change of it starts its replicas anew.
VERSION = frozenset(field.name for field in fields(Wanted)) - {"name", "restart_number"}


class ModelNotFound(ApiError):
    def __init__(self, name: str) -> None:
        super().__init__("model_not_found", _("There is no model “%(name)s”.") % {"name": name}, 404)


class NoLastVersion(ApiError):
    def __init__(self, name: str) -> None:
        super().__init__("no_last_version", _("“%(name)s” has no other version to go back to.") % {"name": name}, 409)


class ModelExists(ApiError):
    """``owner``: the model that has the name, its own or as an alias."""

    def __init__(self, name: str, owner: str) -> None:
        alias = _("“%(name)s” is an alias of the model “%(owner)s”.") % {"name": name, "owner": owner}
        same = _("There is already a model “%(name)s”.") % {"name": name}
        super().__init__("model_exists", same if name == owner else alias, 409)


def set_active(name: str, active: bool, *, asked: bool = True) -> ModelConfig:
    """Start or stop. A policy of "off" would keep it from starting, so starting sets it back. Raises ModelNotFound.

    ``asked`` is False when somebody asked for something else that needs this first.
    """
    fields: dict[str, Any] = {"active": active}
    if active and _get(name).policy == ModelConfig.Policy.OFF:
        fields["policy"] = ModelConfig.Policy.ALWAYS
    model = _update(name, fields, "start" if active else "stop", event=asked)
    if active:
        _load(model)
    else:
        demand.no_preload(model)
    return model


def start(name: str) -> None:
    """A model that has given up is tried anew. Raises ModelNotFound."""
    failed = Replica.objects.filter(model__name=name, state=State.FAILED).exists()
    set_active(name, True)
    if failed:
        request_restart(name)


def request_restart(name: str) -> ModelConfig:
    """Its replicas are replaced, one after the other; one on demand is loaded. Raises ModelNotFound."""
    with transaction.atomic():
        if not ModelConfig.objects.filter(name=name).update(restart_number=F("restart_number") + 1):
            raise ModelNotFound(name)
        model = _get(name)
        audit.on(model, "restart")
    _load(model)
    return model


def _load(model: ModelConfig) -> None:
    """What a person starts is loaded, though nobody has asked it anything yet."""
    if model.is_on_demand:
        demand.preload(model)
    tell_supervisor()


def tell_supervisor() -> None:
    transaction.on_commit(lambda: knock.knock(knock.SUPERVISOR))


def create_model(fields: dict[str, Any]) -> ModelConfig:
    """``fields`` by the names of ModelConfig's fields. Raises ModelExists, ValidationError."""
    with config_entry.file_lock():
        model = ModelConfig(**_checked_names(fields))
        if owner := names.owner_of(model.name):
            raise ModelExists(model.name, owner)
        written = (entry.name for entry in config_file.read(settings.MODEL_CONFIG_PATH).entries)
        if model.name in written and model.name not in config_entry.removed():
            raise ModelExists(model.name, model.name)  # somebody's entry that is not synchronised yet
        validate(model)
        with names.one_writer_wins():
            losers = take_default(model.name) if model.is_default else []
            model.save(force_insert=True)
            names.claim([model])
            audit.on(model, "create", after=config_entry.values_of(model))
        config_entry.restored(model.name)
        for one in (model, *losers):
            config_entry.write_back(one)
    tell_supervisor()
    return model


def update_model(name: str, fields: dict[str, Any]) -> ModelConfig:
    """``fields`` by the names of ModelConfig's fields; the name itself stays. Raises ModelNotFound, ValidationError."""
    return _update(name, fields, "update")


def go_back(name: str) -> ModelConfig:
    """To the version before the last change; asked again, to the one that is there now. Raises ModelNotFound, NoLastVersion."""
    version = _get(name).last_version
    known = {field_name: value for field_name, value in version.items() if field_name in VERSION}
    if not known:
        raise NoLastVersion(name)
    return _update(name, known, "go_back", event=True)


def keep_last_version(model: ModelConfig, before: dict[str, Any]) -> None:
    if any(before[field_name] != getattr(model, field_name) for field_name in VERSION):
        model.last_version = {field_name: before[field_name] for field_name in sorted(VERSION)}


def _update(name: str, fields: dict[str, Any], verb: str, *, event: bool = False) -> ModelConfig:
    with config_entry.file_lock():
        model = _get(name)
        before = config_entry.values_of(model)
        # A form sends everything, also what nobody has touched.
        changes = {key: value for key, value in _checked_names(fields).items() if value != before[key]}
        entry = next((one for one in config_file.read(settings.MODEL_CONFIG_PATH).entries if one.name == name), None)
        if entry is not None:
            # What somebody has written there and not synchronised yet is not lost. What must go together with other models'
            # values waits for the next sync, which looks at all of them.
            config_entry.take_over(model, entry, but=names.FIELDS | {"is_default"} | changes.keys())
        for field_name, value in changes.items():
            if field_name == "name":
                raise ValidationError({"name": _("A model keeps its name; make a new one instead.")})
            setattr(model, field_name, value)
        validate(model, fields)
        keep_last_version(model, before)
        with names.one_writer_wins():
            losers = save(model, {*fields, *(one for one, value in before.items() if value != getattr(model, one))})
            audit.on(model, verb, before, config_entry.values_of(model), event=event)
        for one in (model, *losers):
            config_entry.write_back(one)
    tell_supervisor()
    return model


def take_default(name: str) -> list[ModelConfig]:
    """From whichever other model is the default; those that lost it."""
    losers = list(ModelConfig.objects.filter(is_default=True).exclude(name=name))
    for model in losers:
        before = config_entry.values_of(model)
        model.is_default = False
        model.save(update_fields=["is_default", "updated_at"])
        audit.on(model, "update", before, config_entry.values_of(model))
    return losers


def save(model: ModelConfig, fields: Iterable[str]) -> list[ModelConfig]:
    """``fields``: those that were set. Answers which others were the default before. Within ``names.one_writer_wins`` and
    ``config_entry.file_lock``."""
    losers = take_default(model.name) if model.is_default else []
    model.save(update_fields=[*fields, "extra", "file_entry", "last_version", "updated_at"])
    if "aliases" in fields:
        names.claim([model])
    return losers


def delete_model(name: str) -> None:
    """Out of the configuration; its file stays where it is. Raises ModelNotFound."""
    with config_entry.file_lock():
        model = _get(name)
        with transaction.atomic():
            keepers = _end_shares_of(name)
            audit.on(model, "delete", before=config_entry.values_of(model))
            model.delete()
        config_entry.remove(name)
        for keeper in keepers:
            config_entry.write_back(keeper)
    tell_supervisor()


def _end_shares_of(name: str) -> list[ModelConfig]:
    """Models that gave it a share of their requests keep them."""
    keepers = [model for model in ModelConfig.objects.exclude(traffic={}) if name in model.traffic]
    for model in keepers:
        before = config_entry.values_of(model)
        model.traffic = {other: share for other, share in model.traffic.items() if other != name}
        model.save(update_fields=["traffic", "updated_at"])
        audit.on(model, "update", before, config_entry.values_of(model))
    return keepers


def _get(name: str) -> ModelConfig:
    model = ModelConfig.objects.filter(name=name).first()
    if model is None:
        raise ModelNotFound(name)
    return model


def _checked_names(fields: dict[str, Any]) -> dict[str, Any]:
    unknown = set(fields) - config_entry.FIELDS
    if unknown:
        raise ValidationError({name: _("There is no such field.") for name in sorted(unknown)})
    return fields


def validate(model: ModelConfig, fields: Iterable[str] = config_entry.FIELDS) -> None:
    """``fields``: those that were set. Raises ValidationError, by field."""
    model.full_clean(validate_unique=False)
    errors = {}
    for key in config_file.KEYS.values():
        try:
            key.check(getattr(model, key.field))
        except config_file.BadValue as error:
            errors[key.field] = str(error)
    if not errors:  # they go by values of the right types
        errors |= config_file.problems_together(config_entry.values_of(model))
    if not errors and not names.FIELDS.isdisjoint(fields):
        errors |= names.problems_beside_others(names.values_of(model))
    for field_name, file in config_file.files_of(config_entry.values_of(model)):
        try:
            model_files.locate(file, model.path)
        except (model_files.UnsafePath, OSError, RuntimeError):
            errors[field_name] = _("This file lies outside of the models folder; name a file inside it.")
    if errors:
        raise ValidationError(errors)
