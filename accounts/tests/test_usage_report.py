"""GET /api/v1/usage/report."""

from __future__ import annotations

import csv
import io
import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts import keys, quota
from accounts.keys import NewKey
from accounts.models import ApiKey, Group, UsageHour, User
from accounts.prices import Price
from accounts.quota import Settlement, UsageFigures
from accounts.usage_reports import usage_report

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MARCH = "since=2026-03-01&until=2026-04-01"
_numbers = itertools.count(1)


def use(user: User, at: datetime = NOON, *, key: ApiKey | None = None, **changes: Any) -> None:
    """One request, settled as the gateway does it: 10 tokens read, 5 written, 15 credits of a thousandth."""
    figures = {"model_name": "m", "endpoint": "chat.completions", "status": 200, "outcome": "completed"}
    values = {**figures, "prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 5, **changes}
    usage = UsageFigures(**values, created_at=at)
    price = Price(1000, 1000, 1000)
    quota.settle(Settlement(f"req-{next(_numbers)}", user.wallet.pk, usage, key.pk if key else None, price))


def make_key(owner: User, name: str = "notebook") -> ApiKey:
    return ApiKey.objects.create(user=owner, name=name, hash=f"hash-{name}", prefix="sk-abcdef", last4="wxyz")


def report(client: APIClient, query: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/usage/report?{query}")
    assert answer.status_code == 200, answer.json()
    body: dict[str, Any] = answer.json()
    return body


def shown(client: APIClient, query: str, *figures: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in figures) for row in report(client, query)["rows"]]


@pytest.mark.django_db
class TestWhatIsAddedUp:
    def test_everything_a_row_says(self, as_user, operator: User, user: User) -> None:
        use(user, first_token_ms=100)
        use(user, NOON + timedelta(days=2), first_token_ms=100, outcome="failed", status=502)
        body = report(as_user(operator), f"by=user&{MARCH}")
        figures = {
            "requests": 2,
            "errors": 1,
            "prompt_tokens": 20,
            "cached_tokens": 8,
            "completion_tokens": 10,
            "cost": 30_000,
            "tokens": 30,
        }
        [row] = body["rows"]
        assert {name: row[name] for name in figures} == figures
        assert {name: body["totals"][name] for name in figures} == figures
        assert (row["id"], row["name"], row["owner"]) == (user.pk, "bob", "")
        assert 91 <= row["first_token_median_ms"] <= 109
        assert (body["by"], body["timezone"], body["count"]) == ("user", "UTC", 1)
        assert (body["since"], body["until"]) == ("2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z")

    def test_by_key_model_and_group(self, as_user, operator: User, user: User) -> None:
        key = make_key(user)
        use(user, key=key, model_name="small")
        user.group = Group.objects.create(name="Physics")
        user.save()
        for _time in range(2):
            use(user, model_name="large")
        client = as_user(operator)
        assert shown(client, f"by=key&{MARCH}", "id", "name", "owner", "requests") == [
            (None, "", "", 2),
            (key.pk, "notebook", "bob", 1),
        ]
        assert shown(client, f"by=model&{MARCH}", "id", "name", "requests") == [(None, "large", 2), (None, "small", 1)]
        assert shown(client, f"by=group&{MARCH}", "id", "name", "requests") == [
            (user.group.pk, "Physics", 2),
            (None, "", 1),
        ]

    def test_days_are_those_of_the_time_zone(self, as_user, user: User) -> None:
        use(user, datetime(2026, 3, 1, 15, 59, tzinfo=UTC))
        use(user, datetime(2026, 3, 1, 16, 1, tzinfo=UTC))  # past midnight in Shanghai
        client = as_user(user)
        assert shown(client, f"by=day&{MARCH}", "name", "requests") == [("2026-03-01", 2)]
        in_shanghai = f"by=day&{MARCH}&timezone=Asia/Shanghai"
        assert shown(client, in_shanghai, "name", "requests") == [("2026-03-01", 1), ("2026-03-02", 1)]

    def test_the_clock_change_makes_a_day_of_23_hours(self, as_user, user: User) -> None:
        for hour in range(24 * 2):
            use(user, datetime(2026, 3, 28, 23, tzinfo=UTC) + timedelta(hours=hour))
        days = shown(as_user(user), f"by=day&{MARCH}&timezone=Europe/Berlin", "name", "requests")
        assert days == [("2026-03-29", 23), ("2026-03-30", 24), ("2026-03-31", 1)]

    def test_the_period_begins_with_since_and_ends_before_until(self, as_user, user: User) -> None:
        for hour in (11, 12, 13, 14):
            use(user, NOON.replace(hour=hour), model_name=f"m{hour}")
        query = "by=model&sort=name&since=2026-03-01T12:00:00Z&until=2026-03-01T14:00:00Z"
        assert shown(as_user(user), query, "name") == [("m12",), ("m13",)]

    def test_a_period_of_many_months_is_added_up_over_its_parts(self, as_user, user: User) -> None:
        for month in range(1, 13):
            use(user, datetime(2026, month, 28, tzinfo=UTC), first_token_ms=50 * month)
        [row] = report(as_user(user), "by=model&since=2026-01-01&until=2027-01-01")["rows"]
        assert row["requests"] == 12
        assert 270 <= row["first_token_median_ms"] <= 330

    def test_without_a_period_it_is_the_last_30_days(self, as_user, user: User) -> None:
        now = timezone.now()
        use(user, now - timedelta(days=29))
        use(user, now - timedelta(days=31))
        use(user, now - timedelta(seconds=1))
        assert report(as_user(user), "by=model")["totals"]["requests"] == 2

    def test_requests_without_a_first_token(self, as_user, user: User) -> None:
        use(user)
        totals = report(as_user(user), f"by=model&{MARCH}")["totals"]
        assert (totals["first_token_median_ms"], totals["first_token_p95_ms"]) == (None, None)

    def test_median_and_percentile_are_right_to_9_percent(self, user: User) -> None:
        dice = random.Random(5)
        times = sorted(int(dice.lognormvariate(6, 1)) + 20 for _ in range(400))
        for number, time in enumerate(times):
            use(user, NOON + timedelta(hours=number % 40), first_token_ms=time)
        totals = usage_report("user", NOON, NOON + timedelta(days=3)).totals
        assert totals.first_token_median_ms == pytest.approx(times[199], rel=0.095)
        assert totals.first_token_p95_ms == pytest.approx(times[379], rel=0.095)


@pytest.mark.django_db
class TestOrder:
    @pytest.fixture
    def client(self, as_user, operator: User, make_user) -> APIClient:
        for name, requests, tokens, outcome in (
            ("ann", 3, 1, "completed"),
            ("ben", 1, 50, "failed"),
            ("cy", 2, 20, "failed"),
        ):
            person = make_user(name)
            for _ in range(requests):
                use(person, prompt_tokens=tokens, cached_tokens=0, completion_tokens=0, outcome=outcome)
        return as_user(operator)

    @pytest.mark.parametrize(
        ("sort", "names"),
        [
            ("", ["ben", "cy", "ann"]),
            ("tokens", ["ben", "cy", "ann"]),
            ("requests", ["ann", "cy", "ben"]),
            ("cost", ["ben", "cy", "ann"]),
            ("errors", ["cy", "ben", "ann"]),
            ("name", ["ann", "ben", "cy"]),
        ],
    )
    def test_largest_first(self, client: APIClient, sort: str, names: list[str]) -> None:
        query = f"by=user&{MARCH}" + (f"&sort={sort}" if sort else "")
        assert [name for (name,) in shown(client, query, "name")] == names

    def test_the_limit_leaves_totals_whole(self, client: APIClient) -> None:
        body = report(client, f"by=user&{MARCH}&limit=1")
        assert [row["name"] for row in body["rows"]] == ["ben"]
        assert (body["totals"]["requests"], body["count"]) == (6, 3)

    def test_filters(self, client: APIClient, user: User) -> None:
        key = make_key(user)
        user.group = Group.objects.create(name="Physics")
        user.save()
        use(user, key=key, model_name="large")
        use(user)
        assert shown(client, f"by=model&{MARCH}&user=BOB", "name", "requests") == [("large", 1), ("m", 1)]
        assert shown(client, f"by=user&{MARCH}&key={key.pk}", "name", "requests") == [("bob", 1)]
        assert shown(client, f"by=user&{MARCH}&model=large", "name", "requests") == [("bob", 1)]
        assert shown(client, f"by=user&{MARCH}&group=physics", "name", "requests") == [("bob", 2)]
        assert shown(client, f"by=user&{MARCH}&user=bob&key=0", "name", "requests") == [("bob", 1)]
        assert len(shown(client, f"by=user&{MARCH}&group=", "name")) == 3

    def test_few_queries_however_many_rows(self, client: APIClient, make_user, django_assert_max_num_queries) -> None:
        for _ in range(30):
            person = make_user()
            use(person, key=make_key(person, person.username))
        for by in ("user", "key", "model", "group", "day"):
            with django_assert_max_num_queries(3):  # who asks, the hours, the names
                report(client, f"by={by}&{MARCH}")


@pytest.mark.django_db
class TestWhoSeesWhat:
    def test_users_see_their_own_only(self, as_user, user: User, operator: User) -> None:
        use(user)
        use(operator, model_name="secret")
        client = as_user(user)
        for by in ("user", "key", "model", "group", "day"):
            body = report(client, f"by={by}&{MARCH}")
            assert (body["totals"]["requests"], body["count"]) == (1, 1), by
        assert shown(client, f"by=user&{MARCH}", "name") == [("bob",)]
        assert shown(client, f"by=user&{MARCH}&user=bob", "name") == [("bob",)]
        refused = client.get(f"/api/v1/usage/report?{MARCH}&user=olga")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")

    def test_a_key_of_somebody_else_does_not_exist(self, as_user, user: User, operator: User) -> None:
        foreign, own = make_key(operator, "theirs"), make_key(user, "mine")
        use(operator, key=foreign)
        use(user, key=own)
        client = as_user(user)
        answers = [client.get(f"{path}?key={pk}") for path in PATHS for pk in (foreign.pk, 10**6)]
        assert [answer.status_code for answer in answers] == [400] * 4
        assert len({str(answer.json()["error"]["details"]) for answer in answers}) == 1
        assert shown(client, f"by=key&{MARCH}&key={own.pk}", "name") == [("mine",)]
        assert client.get(f"/api/v1/usage?key={own.pk}").json()["results"][0]["key_name"] == "mine"

    def test_another_group_shows_nothing_of_others(self, as_user, user: User, operator: User) -> None:
        operator.group = Group.objects.create(name="Physics")
        operator.save()
        use(operator)
        use(user)
        query = f"{MARCH}&group=Physics"
        assert report(as_user(user), f"by=user&{query}")["totals"]["requests"] == 0
        assert as_user(user).get("/api/v1/usage?group=Physics").json()["results"] == []
        assert as_user(user).get("/api/v1/usage?group=Chemistry").json()["results"] == []  # there is none
        assert report(as_user(operator), f"by=user&{query}")["totals"]["requests"] == 1

    def test_a_key_needs_the_scope_for_it(self, client: APIClient, user: User) -> None:
        use(user)
        answers = []
        for scope in ("usage:read", "inference"):
            _key, secret = keys.create_key(user, NewKey(name=scope, scopes=[scope]))
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
            answers.append([client.get(path).status_code for path in PATHS])
        assert answers == [[200, 200], [403, 403]]


PATHS = ("/api/v1/usage", "/api/v1/usage/report")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query",
    [
        "by=color",
        "since=yesterday",
        "since=2026-03-02&until=2026-03-01",
        "since=2020-01-01&until=2026-01-01",
        "since=0001-01-01T00:00:00&timezone=Asia/Shanghai",
        "until=9999-12-31T23:59:59-12:00",
        "timezone=Moon/Crater",
        "timezone=../../../etc/passwd",
        "timezone=Europe",
        "timezone=%00",
        "key=x",
        "key=-1",
        "key=99999999999999999999",
        "group=nothing",
        "user=nobody",
        "user=%00",
        "sort=color",
        "limit=0",
        "limit=10001",
        "format=xml",
        "foo=1",
    ],
)
def test_a_query_that_is_not_understood(as_user, operator: User, query: str) -> None:
    answer = as_user(operator).get(f"/api/v1/usage/report?{query}")
    assert answer.status_code == 400
    assert next(iter(answer.json()["error"]["details"])) in query


@pytest.mark.django_db
def test_csv(as_user, operator: User, user: User) -> None:
    use(user, model_name="=cmd()")
    for _ in range(2):
        use(user, model_name="m")
    answer = as_user(operator).get(f"/api/v1/usage/report?by=model&{MARCH}&format=csv")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert "usage-by-model.csv" in answer["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode())))
    assert [(row["name"], row["requests"], row["cost_micro_credits"]) for row in rows] == [
        ("m", "2", "30000"),
        ("'=cmd()", "1", "15000"),
    ]


@pytest.mark.django_db
def test_a_group_by_its_number(as_user, operator: User, user: User) -> None:
    group = Group.objects.create(name="red")
    User.objects.filter(pk=user.pk).update(group=group)
    use(User.objects.get(pk=user.pk))
    use(operator)
    client = as_user(operator)
    totals = {
        asked: report(client, f"{MARCH}&{asked}")["totals"]["requests"]
        for asked in ("group_id=0", f"group_id={group.pk}")
    }
    assert list(totals.values()) == [1, 1]
    both = client.get(f"/api/v1/usage/report?{MARCH}&group=red&group_id={group.pk}")
    assert list(both.json()["error"]["details"]) == ["group_id"]


@pytest.mark.django_db
def test_it_is_read_from_the_sums_by_the_hour(as_user, user: User) -> None:
    """So it goes on telling what was used when the records themselves are gone."""
    use(user, first_token_ms=300)
    before = report(as_user(user), f"by=day&{MARCH}")
    user.usage.all().delete()
    assert report(as_user(user), f"by=day&{MARCH}") == before
    UsageHour.objects.all().delete()
    assert report(as_user(user), f"by=day&{MARCH}")["rows"] == []
