"""Usage records, their sums by the hour and their ledger entries by the million, made by the database itself.

Every figure comes from the row's number by arithmetic, the same on SQLite and PostgreSQL: the same arguments give the same rows.
Past the services, since through them ten million requests would take hours; what is made is right all the same
(``manage.py ledgercheck``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from importlib import import_module

from django.apps import apps
from django.db import connection, transaction
from django.db.models import F, Max, Sum

from accounts.models import ApiKey, Group, LedgerEntry, UsageHour, UsageRecord, User, Wallet

MODELS = ("smollm2-135m-instruct", "qwen2-7b-instruct", "bge-small")
CHUNK = 100_000  # rows in one transaction
PRICE = 1000
# Of the people, so many use it in one hour: they come in sessions and not each minute of the day.
AT_WORK = 0.1
PRIME = 2_147_483_647

# Subjects are looked up by their place in a table made for the purpose: ids need not be without gaps.
PEOPLE = """CREATE TEMPORARY TABLE seed_people
    (place bigint, user_id bigint, username varchar(150), key_id bigint, group_id bigint)"""


# Numbers stand in the statements themselves: "%" is an operator here, and a placeholder in statements with parameters.
def _numbers(low: int, high: int) -> str:
    return f"WITH RECURSIVE n(i) AS (SELECT CAST({low} AS bigint) UNION ALL SELECT i + 1 FROM n WHERE i < {high})"


def _mixed(value: str, salt: int) -> str:
    """A number from 0 to PRIME - 1 that looks as if it were drawn; every product stays within 64 bits."""
    mixed = f"(({value} + {salt}) * 48271 % {PRIME})"
    return f"({mixed} * {mixed} % {PRIME} * 69621 % {PRIME})"


def _drawn(value: str, salt: int, low: int, high: int) -> str:
    return f"({low} + {_mixed(value, salt)} % {high - low + 1})"


def _long(number: str) -> str:
    """A request id as long as real ones are, in their order."""
    return f"'req-' || substr('{'0' * 32}' || {number}, length('{'0' * 32}' || {number}) - 31)"


def _moment(epoch: str) -> str:
    return f"datetime({epoch}, 'unixepoch')" if connection.vendor == "sqlite" else f"to_timestamp({epoch})"


@dataclass(frozen=True)
class Spread:
    """Over how many people and how long the requests go, and the number of the first of them."""

    people: int
    start: int
    seconds: int
    count: int
    first: int


def _records(spread: Spread, low: int, high: int) -> str:
    people, start, seconds, count, first = astuple(spread)
    offset = f"(i - {first})"
    epoch = f"({start} + {offset} * {seconds} / {count})"
    hour = f"({epoch} / 3600)"
    seat = f"({hour} * 1000 + {_drawn('i', 3, 0, max(1, int(people * AT_WORK)) - 1)})"
    prompt, answer, luck = _drawn("i", 5, 5, 3000), _drawn("i", 7, 1, 600), _drawn("i", 11, 0, 99)
    first_token = f"(30 + {_mixed('i', 13)} % 400 + {_mixed('i', 17)} % 1200 * ({_mixed('i', 19)} % 3))"
    model = f"CASE {_mixed(seat, 23)} % 10 WHEN 0 THEN '{MODELS[0]}' WHEN 1 THEN '{MODELS[2]}' ELSE '{MODELS[1]}' END"
    inner = (
        f"SELECT i, {epoch} AS epoch, {_mixed(seat, 29)} % {people} AS place, {model} AS model, {prompt} AS prompt,"
        f" {answer} AS answer, {luck} AS luck, {first_token} AS first_token FROM n"
    )
    return f"""
        INSERT INTO accounts_usagerecord (request_id, user_id, username, key_id, group_id, model_name, endpoint, source, replica,
            streamed, status, outcome, prompt_tokens, cached_tokens, completion_tokens, cost, queue_ms, first_token_ms,
            duration_ms, tokens_per_second, created_at)
        {_numbers(low, high)}
        SELECT {_long("i")}, p.user_id, p.username, CASE WHEN i % 2 = 0 THEN p.key_id END, p.group_id, model,
            'chat.completions', CASE WHEN i % 2 = 0 THEN 'api' ELSE 'chat' END, model || '/1', i % 5 > 0,
            CASE WHEN luck < 90 THEN 200 WHEN luck < 96 THEN 499 WHEN luck < 99 THEN 502 ELSE 429 END,
            CASE WHEN luck < 90 THEN 'completed' WHEN luck < 96 THEN 'cancelled' WHEN luck < 99 THEN 'failed' ELSE 'refused' END,
            prompt, prompt / 3, answer, (prompt + answer) * {PRICE}, CASE WHEN i % 4 = 0 THEN answer * 20 ELSE 0 END, first_token,
            first_token + answer * 40, 25.0, {_moment("epoch")}
        FROM ({inner}) AS drawn JOIN seed_people p USING (place) ORDER BY i
    """


def _entries(low: int, high: int) -> str:
    """A hold of twice the cost and the settlement of each record with these ids, in the order in which they come."""
    columns = "wallet_id, kind, available_change, held_change, cost, request_id, model_name, key_id, note, created_at"
    rows = "FROM accounts_usagerecord r JOIN accounts_wallet w ON w.user_id = r.user_id"
    which = f"WHERE r.id BETWEEN {low} AND {high}"
    return f"""
        INSERT INTO accounts_ledgerentry ({columns})
        SELECT wallet_id, kind, available, held, cost, request_id, model_name, key_id, '', created_at FROM (
            SELECT r.id AS record, w.id AS wallet_id, 'hold' AS kind, -2 * r.cost AS available, 2 * r.cost AS held, 0 AS cost,
                r.request_id, r.model_name, r.key_id, r.created_at {rows}
            {which}
            UNION ALL
            SELECT r.id, w.id, 'settle', r.cost, -2 * r.cost, r.cost, r.request_id, r.model_name, r.key_id, r.created_at {rows}
            {which}
        ) AS both_kinds ORDER BY record, kind
    """


def make(count: int, people: Sequence[User], start: datetime, days: float) -> None:
    """Adds so many requests of these people, spread over the days, with all that belongs to them."""
    if not count:
        return
    highest = UsageRecord.objects.aggregate(last=Max("pk"))["last"] or 0
    _prepare(people)
    began = time.monotonic()
    with connection.cursor() as cursor:
        spread = Spread(len(people), int(start.timestamp()), int(days * 86400), count, highest + 1)
        for low in range(highest + 1, highest + count + 1, CHUNK):
            high = min(low + CHUNK - 1, highest + count)
            with transaction.atomic():
                cursor.execute(_records(spread, low, high))
            _say("usage records", high - highest, began)
    _fund(people, highest)
    _ledger(highest)
    _hours()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE seed_people")
        cursor.execute("ANALYZE")


def _say(what: str, count: int, began: float) -> None:
    if count % (10 * CHUNK) == 0:
        print(f"  {count:,} {what} after {time.monotonic() - began:.0f} s", flush=True)


def _prepare(people: Sequence[User]) -> None:
    """Ten groups, and a key for each second person."""
    groups = [Group.objects.get_or_create(name=f"Group {number}")[0] for number in range(10)]
    known = dict(ApiKey.objects.filter(name="seeded").values_list("user_id", "pk"))
    missing = [user for user in people[::2] if user.pk not in known]
    keys = [
        ApiKey(user=user, name="seeded", hash=f"seeded-{user.pk}", prefix="sk-seeded", last4="0000") for user in missing
    ]
    known |= {key.user_id: key.pk for key in ApiKey.objects.bulk_create(keys)}
    rows = [
        (place, user.pk, user.username, known.get(user.pk), groups[place % len(groups)].pk)
        for place, user in enumerate(people)
    ]
    with connection.cursor() as cursor:
        cursor.execute(PEOPLE)
        cursor.executemany("INSERT INTO seed_people VALUES (%s, %s, %s, %s, %s)", rows)
        cursor.execute("CREATE UNIQUE INDEX seed_places ON seed_people (place)")


def _fund(people: Sequence[User], after: int) -> None:
    """What each will spend and as much again, granted before."""
    costs = UsageRecord.objects.filter(pk__gt=after).order_by().values_list("user_id").annotate(total=Sum("cost"))
    wallets = {wallet.user_id: wallet for wallet in Wallet.objects.filter(user__in=people)}
    grants = []
    for user_id, total in costs:
        wallet, total = wallets[user_id], int(total)
        grants.append(
            LedgerEntry(wallet=wallet, kind=LedgerEntry.Kind.GRANT, available_change=2 * total, note="seeded")
        )
        Wallet.objects.filter(pk=wallet.pk).update(
            available=F("available") + total, spent=F("spent") + total, spent_at_lots=F("spent_at_lots") + total
        )
    LedgerEntry.objects.bulk_create(grants)


def _ledger(after: int) -> None:
    last = UsageRecord.objects.aggregate(last=Max("pk"))["last"]
    began = time.monotonic()
    with connection.cursor() as cursor:
        for low in range(after + 1, last + 1, CHUNK):
            high = min(low + CHUNK - 1, last)
            with transaction.atomic():
                cursor.execute(_entries(low, high))
            _say("requests in the ledger", high - after, began)


def _hours() -> None:
    """By the migration that adds up what was used before there were sums: so it is measured too."""
    began = time.monotonic()
    import_module("accounts.migrations.0004_fill_usage_hours").fill(apps, None)
    print(f"  {UsageHour.objects.count():,} sums by the hour in {time.monotonic() - began:.0f} s", flush=True)
