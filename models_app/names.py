"""Under which names models are asked for, and which others answer a part of it: no name may mean two models, and no share of
requests may go round in circles.

What is checked is the whole picture of all models, by name and with the fields in ``FIELDS``; a problem is said of the model
that is written. Pure, but for the part below, which keeps ``ServedName`` in step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from models_app.models import ModelConfig, ServedName

FIELDS = frozenset({"name", "aliases", "traffic", "embeddings", "rerank"})
Values = Mapping[str, Any]


class Picture:
    """All models' values by name, and what is asked of them."""

    def __init__(self, models: Mapping[str, Values]) -> None:
        self._models = models
        self._owners: dict[str, list[str]] = defaultdict(list)
        self._senders: dict[str, list[str]] = defaultdict(list)
        for name, values in models.items():
            for served in (name, *values["aliases"]):
                self._owners[served].append(name)
            for target in values["traffic"]:
                self._senders[target].append(name)

    def problems_of(self, name: str) -> dict[str, str]:
        """By field; the first one of each."""
        found: dict[str, str] = {}
        for field, problem in (*self._of_names(name), *self._of_traffic(name), *self._of_senders(name)):
            found.setdefault(field, problem)
        return found

    def _of_names(self, name: str) -> Iterator[tuple[str, str]]:
        for served in (name, *self._models[name]["aliases"]):
            for owner in self._owners[served]:
                if owner != name:
                    problem = _("cannot be “%(name)s”: that is a name of the model “%(model)s”")
                    yield "name" if served == name else "aliases", problem % {"name": served, "model": owner}

    def _of_traffic(self, name: str) -> Iterator[tuple[str, str]]:
        for target in self._models[name]["traffic"]:
            other = self._models.get(target)
            if other is None:
                yield "traffic", _("names “%(name)s”, which is no model") % {"name": target}
            elif other["traffic"]:
                problem = _("names “%(name)s”, which gives away requests itself; a share is not passed on")
                yield "traffic", problem % {"name": target}
            elif _kind(other) != _kind(self._models[name]):
                yield "traffic", _("names “%(name)s”, a model of another kind") % {"name": target}

    def _of_senders(self, name: str) -> Iterator[tuple[str, str]]:
        values = self._models[name]
        for sender in self._senders[name]:
            if values["traffic"]:
                problem = _(
                    "is not possible: “%(name)s” gives this model a share of its requests, which is not passed on"
                )
                yield "traffic", problem % {"name": sender}
            elif _kind(self._models[sender]) != _kind(values):
                problem = _("must stay as it is while “%(name)s” gives this model a share of its requests")
                yield "embeddings", problem % {"name": sender}


def _kind(values: Values) -> tuple[bool, bool]:
    return values["embeddings"], values["rerank"]


def refused(there: Mapping[str, Values], wanted: Mapping[str, Values]) -> dict[str, dict[str, str]]:
    """Which of ``wanted``, written together, cannot be; the later one of two that exclude each other."""
    out: dict[str, dict[str, str]] = {}
    while True:
        left = {name: values for name, values in wanted.items() if name not in out}
        picture = Picture({**there, **left})
        for name in reversed(left):
            if problems := picture.problems_of(name):
                out[name] = problems
                break
        else:
            return out


def values_of(model: ModelConfig) -> dict[str, Any]:
    return {field: getattr(model, field) for field in FIELDS}


# -- with the database -------------------------------------------------------------------------------------------------
def problems_beside_others(values: Values) -> dict[str, str]:
    """What is wrong with one model's values beside all other models, by field."""
    there = {row["name"]: row for row in ModelConfig.objects.values(*FIELDS)}
    return Picture({**there, values["name"]: values}).problems_of(values["name"])


def owner_of(name: str) -> str | None:
    """The model that has ``name``, its own or as an alias."""
    own = ModelConfig.objects.filter(name=name).values_list("name", flat=True)
    return own.first() or ServedName.objects.filter(name=name).values_list("model__name", flat=True).first()


def taken() -> set[str]:
    """All names that stand for a model."""
    own = ModelConfig.objects.values_list("name", flat=True)
    return {*own, *ServedName.objects.values_list("name", flat=True)}


def claim(models: Iterable[ModelConfig]) -> None:
    """Their names are theirs from now on, all at once, so that one may take what another gives up. Within ``one_writer_wins``."""
    models = list(models)
    rows = [ServedName(name=name, model=model) for model in models for name in (model.name, *model.aliases)]
    ServedName.objects.filter(model__in=models).delete()
    ServedName.objects.bulk_create(rows)


@contextmanager
def one_writer_wins() -> Iterator[None]:
    """A transaction. Raises ValidationError when somebody else has taken a name, or the default, in this very moment."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        taken = _(
            "Somebody else has just given one of these names, or the default, to another model. Look and try again."
        )
        raise ValidationError(taken) from error
