"""GET /api/v1/usage and /api/v1/ledger."""

from __future__ import annotations

import base64
import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from django.test import AsyncClient
from rest_framework.test import APIClient

from accounts import quota, services
from accounts.models import ApiKey, Group, LedgerEntry, UsageRecord, User
from accounts.quota import Settlement, UsageFigures

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def use(
    user: User, request_id: str, minutes: int = 0, model: str = "m", tokens: int = 3, key_id: int | None = None
) -> None:
    figures = UsageFigures(
        model_name=model,
        endpoint="chat.completions",
        status=200,
        outcome="completed",
        completion_tokens=tokens,
        created_at=NOON + timedelta(minutes=minutes),
    )
    quota.settle(Settlement(request_id, user.wallet.pk, figures, key_id))


def ids(client: APIClient, url: str) -> list[str]:
    answer = client.get(url)
    assert answer.status_code == 200, answer.json()
    return [row["request_id"] for row in answer.json()["results"]]


@pytest.mark.django_db
class TestUsage:
    def test_one_row_with_everything_but_the_text(self, as_user, user: User) -> None:
        use(user, "r1")
        [row] = as_user(user).get("/api/v1/usage").json()["results"]
        assert row == {
            "request_id": "r1",
            "time": "2026-03-01T12:00:00Z",
            "user": "bob",
            "key": None,
            "key_name": "",
            "group": None,
            "model": "m",
            "endpoint": "chat.completions",
            "source": "api",
            "streamed": False,
            "status": 200,
            "outcome": "completed",
            "prompt_tokens": 0,
            "cached_tokens": 0,
            "completion_tokens": 3,
            "cost": 3000,
            "queue_ms": 0,
            "first_token_ms": None,
            "duration_ms": 0,
            "tokens_per_second": None,
            "resumed": 0,
        }

    def test_users_see_their_own_and_operators_all(self, as_user, user: User, operator: User) -> None:
        use(user, "r1")
        use(operator, "r2", 1)
        assert ids(as_user(user), "/api/v1/usage") == ["r1"]
        assert ids(as_user(user), "/api/v1/usage?user=BOB") == ["r1"]
        refused = as_user(user).get("/api/v1/usage?user=olga")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        assert ids(as_user(operator), "/api/v1/usage") == ["r2", "r1"]
        assert ids(as_user(operator), "/api/v1/usage?user=bob") == ["r1"]
        assert as_user(operator).get("/api/v1/usage?user=nobody").status_code == 400

    def test_filters(self, as_user, user: User) -> None:
        for number in range(4):
            use(user, f"r{number}", number, model="a" if number % 2 else "b")
        client = as_user(user)
        assert ids(client, "/api/v1/usage?model=a") == ["r3", "r1"]
        assert ids(client, "/api/v1/usage?since=2026-03-01T12:01:00Z&until=2026-03-01T12:03:00Z") == ["r2", "r1"]

    def test_by_key_and_group_as_they_were_at_the_time(self, as_user, user: User) -> None:
        key = ApiKey.objects.create(user=user, name="notebook", hash="h", prefix="sk-abcdef", last4="wxyz")
        use(user, "r0")
        user.group = Group.objects.create(name="Physics")
        user.save()
        use(user, "r1", 1, key_id=key.pk)
        use(user, "r2", 2)
        client = as_user(user)
        assert ids(client, f"/api/v1/usage?key={key.pk}") == ["r1"]
        assert ids(client, "/api/v1/usage?group=physics") == ["r2", "r1"]
        row = client.get("/api/v1/usage").json()["results"][1]
        named = {name: row[name] for name in ("key", "key_name", "group")}
        assert named == {"key": key.pk, "key_name": "notebook", "group": "Physics"}

    def test_pages_neither_repeat_nor_miss_a_row_while_more_come_in(self, as_user, user: User) -> None:
        for number in range(7):
            use(user, f"r{number}", number // 3)  # several at the very same time
        client = as_user(user)
        seen: list[str] = []
        cursor = ""
        for page in range(3):
            answer = client.get(f"/api/v1/usage?limit=3{cursor}").json()
            seen += [row["request_id"] for row in answer["results"]]
            cursor = f"&cursor={answer['next']}"
            use(user, f"later{page}", 100 + page)
        assert seen == ["r6", "r5", "r4", "r3", "r2", "r1", "r0"]
        assert answer["next"] is None

    @pytest.mark.parametrize(
        "query",
        [
            "cursor=x",
            "cursor=WyJ4Iiwgl",
            "cursor=é",
            "limit=0",
            "limit=x",
            "since=yesterday",
            "format=xml",
            "foo=1",
            "user=%00",
            "key=x",
            "key=0",
            "group=",
            "key=99999999999999999999",
            "group=nothing",
            "since=0001-01-01T00:00:00",
        ],
    )
    def test_a_query_that_is_not_understood(self, as_user, operator: User, query: str) -> None:
        answer = as_user(operator).get(f"/api/v1/usage?{query}")
        assert answer.status_code == 400
        assert list(answer.json()["error"]["details"]) == [query.partition("=")[0]]

    @pytest.mark.parametrize(
        "inside",
        [
            "",
            "|",
            "2026-01-01T00:00:00Z|",
            "2026-01-01T00:00:00Z|-1",
            f"2026-01-01T00:00:00Z|{10**30}",
            "0001-01-01T00:00:00+14:00|1",
            "é|1",
        ],
    )
    def test_a_cursor_made_up(self, as_user, user: User, inside: str) -> None:
        cursor = base64.urlsafe_b64encode(inside.encode()).decode()
        assert as_user(user).get(f"/api/v1/usage?cursor={cursor}").status_code == 400

    def test_csv_has_all_rows_and_no_formulas(self, as_user, user: User) -> None:
        for number in range(5):
            use(user, f"r{number}", number, model="=cmd()" if number else "m")
        answer = as_user(user).get("/api/v1/usage?format=csv&limit=2")
        assert answer["Content-Type"] == "text/csv; charset=utf-8"
        rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode())))
        assert [row["request_id"] for row in rows] == ["r4", "r3", "r2", "r1", "r0"]
        assert [row["model"] for row in rows] == ["'=cmd()"] * 4 + ["m"]

    def test_queries_do_not_grow_with_the_rows(self, as_user, operator: User, django_assert_num_queries) -> None:
        key = ApiKey.objects.create(user=operator, name="notebook", hash="h", prefix="sk-abcdef", last4="wxyz")
        for number in range(20):
            use(operator, f"r{number}", number, key_id=key.pk)
        client = as_user(operator)
        with django_assert_num_queries(2):
            client.get("/api/v1/usage")
        with django_assert_num_queries(2):
            client.get("/api/v1/ledger")


@pytest.mark.django_db
class TestLedger:
    def test_it_shows_every_change_and_adds_up(self, as_user, user: User) -> None:
        quota.hold(quota.HoldRequest("r1", user.wallet.pk, "m", 1, 5))
        use(user, "r1")
        rows = as_user(user).get("/api/v1/ledger").json()["results"]
        assert [row["kind"] for row in rows] == ["settle", "hold", "grant"]
        user.wallet.refresh_from_db()
        assert sum(row["available_change"] for row in rows) == user.wallet.available
        assert sum(row["held_change"] for row in rows) == 0
        assert rows[0]["user"] == "bob"

    def test_filters_and_roles(self, as_user, user: User, operator: User) -> None:
        use(user, "r1")
        assert ids(as_user(user), "/api/v1/ledger?kind=settle") == ["r1"]
        assert len(ids(as_user(operator), "/api/v1/ledger?kind=grant")) == 2
        assert len(ids(as_user(operator), "/api/v1/ledger?kind=grant&user=bob")) == 1
        assert as_user(user).get("/api/v1/ledger?kind=steal").status_code == 400
        assert LedgerEntry.objects.count() == 3

    def test_pages(self, as_user, user: User) -> None:
        for number in range(4):
            quota.top_up(user.wallet, number + 1)
        client = as_user(user)
        first = client.get("/api/v1/ledger?limit=3").json()
        rest = client.get(f"/api/v1/ledger?limit=3&cursor={first['next']}").json()
        changes = [row["available_change"] for row in first["results"] + rest["results"]]
        assert changes == [4, 3, 2, 1, 1_000_000]
        assert rest["next"] is None


@pytest.mark.django_db(transaction=True)
async def test_csv_under_asgi_comes_page_by_page(user: User, monkeypatch) -> None:
    from accounts.api import history

    monkeypatch.setattr(history, "CSV_PAGE", 2)
    rows = [
        UsageRecord(
            request_id=f"r{number}",
            user=user,
            model_name="m",
            endpoint="x",
            status=200,
            outcome="completed",
            created_at=NOON,
        )
        for number in range(5)
    ]
    await UsageRecord.objects.abulk_create(rows)
    token = services.console_token(user)
    answer = await AsyncClient().get("/api/v1/usage?format=csv", headers={"Authorization": f"Bearer {token}"})
    chunks = [chunk async for chunk in answer]
    assert len(chunks) >= 3
    assert len(b"".join(chunks).splitlines()) == 6
