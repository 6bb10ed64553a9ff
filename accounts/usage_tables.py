"""Reports as tables for people: every figure written in their language."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.usage_reports import By, Figures, Report, Row
from llmplatform.lib.console import formats


@dataclass(frozen=True, slots=True)
class Line:
    """``share`` in per cent of what is added up in the whole report, by the figure it is sorted by."""

    row: Row | None
    name: str
    detail: str
    requests: str
    errors: str
    tokens: str
    prompt: str
    cached: str
    completion: str
    credits: str
    median: str
    p95: str
    share: float = 0.0


def lines(by: By, report: Report, sort: str = "tokens") -> list[Line]:
    whole = getattr(report.totals, sort, 0) or 0
    return [_line(row.figures, *_named(by, row), row=row, share=_share(row, sort, whole)) for row in report.rows]


def total(report: Report) -> Line:
    return _line(report.totals, _("Total"), "")


def _share(row: Row, sort: str, whole: int) -> float:
    return 100 * (getattr(row.figures, sort) or 0) / whole if whole and sort in ADDED_UP else 0.0


# What shares of a whole can be told of: times and names cannot be added up.
ADDED_UP = {"requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens", "tokens", "cost"}


def _named(by: By, row: Row) -> tuple[str, str]:
    """What stands in the first column, and smaller below it."""
    if row.start is not None:
        return date_format(row.start, "DATE_FORMAT"), ""
    if row.id is None and by in ("key", "group"):
        return (_("Without a key"), _("chat and logged-in browsers")) if by == "key" else (_("Without a group"), "")
    return row.name or _("deleted, number %(id)s") % {"id": row.id}, row.owner


def _line(figures: Figures, name: str, detail: str, *, row: Row | None = None, share: float = 0.0) -> Line:
    return Line(
        row=row,
        name=name,
        detail=detail,
        requests=formats.number(figures.requests),
        errors=formats.number(figures.errors) if figures.errors else formats.NOTHING,
        tokens=formats.number(figures.tokens),
        prompt=formats.number(figures.prompt_tokens),
        cached=formats.number(figures.cached_tokens),
        completion=formats.number(figures.completion_tokens),
        credits=formats.rounded_credits(figures.cost),
        median=formats.milliseconds(figures.first_token_median_ms),
        p95=formats.milliseconds(figures.first_token_p95_ms),
        share=share,
    )


def left_out(report: Report) -> str:
    """How many rows the limit left out; empty when none."""
    count = report.count - len(report.rows)
    if not count:
        return ""
    return ngettext("%(count)s more is not shown.", "%(count)s more are not shown.", count) % {
        "count": formats.number(count)
    }
