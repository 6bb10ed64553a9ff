"""Who used what: sums over ``UsageHour`` for people, keys, models, groups and days.

The smallest piece is one hour of UTC. A report holds the hours that begin in ``[since, until)``; an hour belongs to the day
of the asked time zone in which it begins (where midnight is not at a full hour, as in India, the hour around it goes to the day
before).

Times to the first token are kept as histograms whose buckets grow by 2^(1/4): a median or percentile is right to ±9 %.

However many records there are, the database reads the hours of the period once and adds up in C; a month at a time, so that a
long period takes no more memory. Names are one query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Literal

from django.db.models import Aggregate, QuerySet, Subquery, Sum, TextField, Value
from django.utils import timezone

from accounts import histogram
from accounts.models import ApiKey, Group, UsageHour, User

By = Literal["user", "key", "model", "group", "day", "hour"]
COLUMNS: dict[By, str] = {
    "user": "user_id",
    "key": "key_number",
    "model": "model_name",
    "group": "group_number",
    "day": "hour",
    "hour": "hour",
}
SUMS = ("requests", "errors", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")
FIGURES = (*SUMS, "tokens", "first_token_median_ms", "first_token_p95_ms")
SORTS = ("name", *FIGURES)
LONGEST = timedelta(days=367)
AT_ONCE = timedelta(days=31)
PIECE = 64 * 1024  # characters of histograms taken apart at once
NAMES_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Tokens are prompt and completion; ``cached_tokens`` are a part of the prompt's. Cost in micro-credits."""

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0
    tokens: int = 0
    first_token_median_ms: int | None = None
    first_token_p95_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """``id`` of the user, key or group; None where the requests had none, and for models and times. ``owner``: a key's.
    ``start``: of a day or an hour (UTC), whose ``name`` is its ISO form."""

    figures: Figures
    id: int | None = None
    name: str = ""
    owner: str = ""
    start: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """``count`` is how many rows there are without the limit; ``totals`` are over all of them."""

    rows: list[Row]
    totals: Figures
    count: int


def usage_report(
    by: By,
    since: datetime,
    until: datetime,
    *,
    user_id: int | None = None,
    key_id: int | None = None,
    model: str = "",
    group_id: int | None = None,
    sort: str = "",
    limit: int | None = None,
    zone: tzinfo | None = None,
) -> Report:
    """Largest first by ``sort``, one of SORTS (tokens when empty); times and names in their own order. ``user_id`` and so on
    None: all; ``key_id`` and ``group_id`` 0: requests without one. Times without any use have no row.

    Raises ValueError when the period is longer than LONGEST.
    """
    if until - since > LONGEST:
        raise ValueError("the period is too long")
    zone = zone or timezone.get_current_timezone()
    hours = _selected(user_id, key_id, model, group_id)
    sums = _sums(hours, COLUMNS[by], since, until)
    if by == "day":
        sums = _days(sums, zone)
    figures = {subject: one.figures() for subject, one in sums.items()}
    total = _Sums()
    for one in sums.values():
        total.add(one)
    rows = _sorted(by, figures, sort or ("name" if by in ("day", "hour") else "tokens"), limit)
    return Report(rows, total.figures(), len(figures))


# -- adding up -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Sums:
    values: list[int] = field(default_factory=lambda: [0] * len(SUMS))
    first_token: Counter[int] = field(default_factory=Counter)

    def add(self, other: _Sums) -> None:
        self.values = [mine + more for mine, more in zip(self.values, other.values, strict=True)]
        self.first_token.update(other.first_token)

    def figures(self) -> Figures:
        sums = dict(zip(SUMS, self.values, strict=True))
        return Figures(
            **sums,
            tokens=sums["prompt_tokens"] + sums["completion_tokens"],
            first_token_median_ms=_milliseconds(self.first_token, 0.5),
            first_token_p95_ms=_milliseconds(self.first_token, 0.95),
        )


def _milliseconds(counts: Mapping[int, int], share: float) -> int | None:
    value = histogram.quantile(counts, share)
    return None if value is None else round(value)


class _Joined(Aggregate):
    """The texts of a group, one after the other with a space between."""

    function = "GROUP_CONCAT"
    output_field = TextField()

    def __init__(self, expression: str, **extra: Any) -> None:
        super().__init__(expression, Value(" "), **extra)

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, function="STRING_AGG", **extra)


def _selected(user_id: int | None, key_id: int | None, model: str, group_id: int | None) -> QuerySet[UsageHour]:
    hours = UsageHour.objects.order_by()
    if user_id is not None:
        hours = hours.filter(user_id=user_id)
    elif key_id:
        # A key has one owner, and there is an index on owners.
        hours = hours.filter(user_id=Subquery(ApiKey.objects.filter(pk=key_id).values("user_id")))
    if key_id is not None:
        hours = hours.filter(key_number=key_id)
    if group_id is not None:
        hours = hours.filter(group_number=group_id)
    return hours.filter(model_name=model) if model else hours


def _sums(hours: QuerySet[UsageHour], column: str, since: datetime, until: datetime) -> dict[Any, _Sums]:
    found: dict[Any, _Sums] = {}
    while since < until:
        end = min(since + AT_ONCE, until)
        for subject, *values, texts in _added_up(hours.filter(hour__gte=since, hour__lt=end), column):
            found.setdefault(subject, _Sums()).add(_Sums([int(value) for value in values], merged(texts)))
        since = end
    return found


def _added_up(hours: QuerySet[UsageHour], column: str) -> Iterator[tuple[Any, ...]]:
    # Named otherwise than the columns, which they would stand in the way of.
    sums = {f"sum_{name}": Sum(name) for name in SUMS}
    rows = hours.values(column).annotate(**sums, texts=_Joined("first_token"))
    yield from rows.values_list(column, *sums, "texts").iterator(chunk_size=500)


def merged(texts: str) -> Counter[int]:
    """The sum of histograms written one after the other.

    Most of their parts are alike, so those are counted as text, which C does, and only different ones are read.
    """
    parts: Counter[str] = Counter()
    start = 0
    while start < len(texts):
        end = texts.find(" ", start + PIECE)
        end = len(texts) if end < 0 else end
        parts.update(texts[start:end].split())
        start = end
    counts: Counter[int] = Counter()
    for part, times in parts.items():
        for bucket, count in histogram.decode(part).items():
            counts[bucket] += count * times
    return counts


def _days(hours: dict[datetime, _Sums], zone: tzinfo) -> dict[datetime, _Sums]:
    days: dict[datetime, _Sums] = {}
    for hour, one in hours.items():
        days.setdefault(start_of(hour.astimezone(zone).date(), zone), _Sums()).add(one)
    return days


def start_of(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, datetime.min.time(), zone)


# -- rows ------------------------------------------------------------------------------------------------------------


def _sorted(by: By, figures: dict[Any, Figures], sort: str, limit: int | None) -> list[Row]:
    """Only the names that are shown are looked up, unless the order depends on them."""
    if sort == "name":
        return sorted(_named(by, figures), key=lambda row: (row.name.lower(), row.id or 0))[:limit]
    order: Callable[[Any], Any] = lambda subject: (-(getattr(figures[subject], sort) or 0), subject)  # noqa: E731
    shown = sorted(figures, key=order)[:limit]
    return _named(by, {subject: figures[subject] for subject in shown})


def _named(by: By, figures: Mapping[Any, Figures]) -> list[Row]:
    if by == "model":
        return [Row(one, name=name) for name, one in figures.items()]
    if by == "day":
        return [Row(one, name=start.date().isoformat(), start=start) for start, one in figures.items()]
    if by == "hour":
        return [Row(one, name=start.isoformat(), start=start) for start, one in figures.items()]
    names = NAMES[by]([number for number in figures if number])
    return [Row(one, number or None, *names.get(number, ("", ""))) for number, one in figures.items()]


def _users(ids: Collection[int]) -> dict[int, tuple[str, str]]:
    return {pk: (name, "") for pk, name in _found(User.objects.all(), ids, "pk", "username")}


def _groups(ids: Collection[int]) -> dict[int, tuple[str, str]]:
    return {pk: (name, "") for pk, name in _found(Group.objects.order_by(), ids, "pk", "name")}


def _keys(ids: Collection[int]) -> dict[int, tuple[str, str]]:
    keys = ApiKey.objects.order_by()
    return {pk: (name, owner) for pk, name, owner in _found(keys, ids, "pk", "name", "user__username")}


def _found(rows: QuerySet[Any], ids: Collection[int], *fields: str) -> Iterable[tuple[Any, ...]]:
    """Of many, the whole table: a query cannot name any number of them."""
    if not ids:
        return []
    wanted = rows if len(ids) > NAMES_AT_ONCE else rows.filter(pk__in=ids)
    return wanted.values_list(*fields)


NAMES: dict[str, Callable[[Collection[int]], dict[int, tuple[str, str]]]] = {
    "user": _users,
    "key": _keys,
    "group": _groups,
}
