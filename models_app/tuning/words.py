"""What a tuning found, in words and as a table, in the reader's language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from models_app import reasons
from models_app.models import TuningRun
from models_app.tuning.candidates import LATENCY, MEMORY, Setting

READING = 8  # tokens per second: a little faster than people read
BUSY = 0.2  # share of the processor above which a result is doubted
MIB = 1024**2


@dataclass(frozen=True)
class Line:
    """One candidate as a row of the table."""

    settings: str
    speed: str
    slowest: str
    memory: str
    problem: str
    chosen: bool


def setting_text(values: dict[str, Any]) -> str:
    """Only what differs from llama-server's defaults."""
    default = Setting()
    differing = [name for name, value in values.items() if value != getattr(default, name, None)]
    return ", ".join(f"{_field(name)} {values[name]}" for name in differing) or _("llama-server's defaults")


def _field(name: str) -> str:
    return {
        "threads": _("threads"),
        "batch_threads": _("threads for prompts"),
        "ubatch": _("prompt tokens at once"),
        "slots": _("slots"),
        "cache_type": _("context precision"),
        "flash_attention": _("flash attention"),
        "speculative": _("guessing ahead"),
        "replicas": _("replicas"),
    }[name]


def lines(run: TuningRun) -> list[Line]:
    return [
        Line(
            setting_text(row["settings"]),
            f"{row['tokensPerSecond']:.1f}" if row["runs"] else "",
            f"{row['slowest']:.1f}" if row["runs"] else "",
            f"{row['memory'] / MIB:.0f} MiB" if row["runs"] else "",
            reasons.text(row["problem"]),
            _is_chosen(run, row),
        )
        for row in run.rows
    ]


def _is_chosen(run: TuningRun, row: dict[str, Any]) -> bool:
    return bool(run.chosen) and all(row["settings"][name] == value for name, value in run.chosen.items())


def sentences(run: TuningRun) -> list[str]:
    """What it means. While it is under way: how far it is."""
    if run.stage == TuningRun.Stage.WANTED:
        return [_("It begins as soon as the supervisor has taken it up.")]
    if run.stage == TuningRun.Stage.RUNNING:
        return [*_best_so_far(run), *_doubt(run)]
    if run.stage != TuningRun.Stage.DONE:
        return [reasons.text(run.reason)]
    row = next((row for row in run.rows if _is_chosen(run, row)), None)
    return [*_result(run), *(_meaning(run, row) if row else []), *_doubt(run), *_applied(run)]


def _best_so_far(run: TuningRun) -> list[str]:
    measured = [row for row in run.rows if row["runs"]]
    if not measured:
        return []
    best = max(measured, key=lambda row: -row["memory"] if run.aim == MEMORY else row["tokensPerSecond"])
    text = _("Best so far: %(settings)s, %(speed).1f tokens/s.")
    return [text % {"settings": setting_text(best["settings"]), "speed": best["tokensPerSecond"]}]


def _result(run: TuningRun) -> list[str]:
    if not run.gain or run.gain <= 1:
        return [_("llama-server's defaults were best; nothing else was better by more than the measurements vary.")]
    words = {"settings": setting_text({**run.rows[0]["settings"], **run.chosen}), "gain": run.gain}
    if run.aim == MEMORY:
        return [_("Best: %(settings)s. The defaults take %(gain).2f times the memory.") % words]
    return [_("Best: %(settings)s. That is %(gain).2f times as fast as llama-server's defaults.") % words]


def _meaning(run: TuningRun, row: dict[str, Any]) -> list[str]:
    if run.aim == LATENCY:
        told = _("One person gets %(speed).1f tokens/s, reading the question included.")
        return [told % {"speed": row["tokensPerSecond"]}]
    measured = _("Measured: %(clients)d people at once get %(slowest).1f tokens/s or more each.")
    # Said of as many as were measured, and of no others.
    if row["slowest"] >= READING:
        serves = ngettext(
            "Serves %(people)d person at %(reading)d tokens/s or more.",
            "Serves %(people)d people at %(reading)d tokens/s or more.",
            run.clients,
        )
    else:
        serves = _("For %(people)d at once that is less than people read: %(reading)d tokens/s.")
    return [
        measured % {"clients": run.clients, "slowest": row["slowest"]},
        serves % {"people": run.clients, "reading": READING},
    ]


def _doubt(run: TuningRun) -> list[str]:
    if run.busy <= BUSY:
        return []
    text = _(
        "Other work took up to %(busy).0f %% of the processor meanwhile; on a quiet machine the figures are better."
    )
    return [text % {"busy": run.busy * 100}]


def _applied(run: TuningRun) -> list[str]:
    return [_("These settings are in use.")] if run.applied else []
