"""What fits on this machine, as a table to choose from: pure functions over what ``model_folder.fit_table`` counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from llmplatform.lib.console import formats
from models_app import machine, memory, model_folder, preparation, selectors
from models_app.command_line import Wanted
from models_app.gguf import EMBEDDING, RERANK, GgufFacts
from models_app.memory import DEFAULT_CONTEXT, KV_VALUE_BYTES, Load
from models_app.memory_learning import learned
from models_app.model_folder import Fit
from models_app.models import ModelConfig
from models_app.preparation import Circumstances, NotStartable

VALUE = re.compile(r"(\d{1,8})-(\d{1,3})-(\w{1,8})\Z")


@dataclass(frozen=True)
class Cell:
    value: str  # as ``settings_of`` reads it
    memory: str
    fits: bool
    chosen: bool
    column: str
    label: str  # for those who do not see the table


@dataclass(frozen=True)
class Line:
    context: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()


def value_of(fit: Fit) -> str:
    return f"{fit.context_length}-{fit.slots}-{fit.cache_type}"


def settings_of(value: str) -> dict[str, Any]:
    """By field; nothing of what ``value_of`` does not write."""
    match = VALUE.match(value)
    if match is None or match[3] not in KV_VALUE_BYTES:
        return {}
    return {"context_length": int(match[1]), "slots": int(match[2]), "cache_type": match[3]}


def preselected(fits: Iterable[Fit]) -> Fit | None:
    """Of what fits, the nearest to what is usual: the largest context up to the usual one (of more only when there is nothing
    else), then the most slots, then the most exact. None when nothing fits."""
    possible = [fit for fit in fits if fit.fits]
    usual = [fit for fit in possible if fit.context_length <= DEFAULT_CONTEXT]
    best = max if usual else min
    return best(
        usual or possible,
        key=lambda fit: (fit.context_length, fit.slots, KV_VALUE_BYTES[fit.cache_type]),
        default=None,
    )


def counted(facts: GgufFacts, usable: int) -> list[Fit]:
    """The table's cells; where none of them fits, also the settings nearest to the smallest of them that would."""
    fits = list(model_folder.fit_table(facts, usable))
    if fits and not any(fit.fits for fit in fits):
        smallest = min(fits, key=lambda fit: fit.needed)
        encodes = facts.kind in (EMBEDDING, RERANK)
        load = Load(
            smallest.context_length,
            smallest.slots,
            smallest.cache_type,
            encodes=encodes,
            repacked=machine.repacked_formats(),
        )
        context = memory.largest_context(facts, load, usable)
        if context:
            fits += [
                Fit(context, fit.slots, fit.cache_type, need, need <= usable)
                for fit in fits
                if fit.context_length == fits[0].context_length
                for need in [_needed(facts, context, fit, encodes)]
            ]
    return sorted(fits, key=lambda fit: fit.context_length)


def _needed(facts: GgufFacts, context: int, fit: Fit, encodes: bool) -> int:
    load = Load(
        context, fit.slots, fit.cache_type, encodes=encodes, repacked=machine.repacked_formats(), prompt_cache=0
    )
    return memory.need(facts, load).at_start


def table(fits: Sequence[Fit], chosen: Fit | None) -> Table:
    rows: dict[int, list[Fit]] = {}
    for fit in fits:
        rows.setdefault(fit.context_length, []).append(fit)
    columns = tuple(_column(fit) for fit in next(iter(rows.values()), []))
    lines = tuple(
        Line(formats.number(context), tuple(_cell(fit, fit == chosen) for fit in row)) for context, row in rows.items()
    )
    return Table(columns, lines)


def _column(fit: Fit) -> str:
    slots = _("one slot") if fit.slots == 1 else _("%(number)s slots") % {"number": fit.slots}
    return f"{slots}, {fit.cache_type}"


def _cell(fit: Fit, chosen: bool) -> Cell:
    label = _("%(context)s tokens, %(column)s") % {
        "context": formats.number(fit.context_length),
        "column": _column(fit),
    }
    return Cell(value_of(fit), formats.size(fit.needed), fit.fits, chosen, _column(fit), label)


# -- the settings as they were filled in -----------------------------------------------------------------------------------
def problem(facts: GgufFacts, fields: dict[str, Any]) -> dict[str, Any] | None:
    """Why a start with these settings would be refused for want of memory, as ``models_app.reasons`` has it, with the nearest
    settings that would fit; None when it would start, or is not to be started now."""
    model = ModelConfig(**{"file": "x.gguf", **fields})
    if not model.wanted_replicas or model.policy != ModelConfig.Policy.ALWAYS:
        return None
    wanted = Wanted(**{name: getattr(model, name) for name in Wanted.__dataclass_fields__})
    try:
        preparation.plan_for(wanted, selectors.files_of(model, facts), Circumstances(learned=learned()))
    except NotStartable as error:
        return error.reason
    return None
