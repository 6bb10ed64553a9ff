"""/account/usage: one's own use, by month, drawn without a script."""

from __future__ import annotations

import csv
import io
import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.utils import timezone

from accounts import quota
from accounts.models import ApiKey, User
from accounts.quota import Settlement, UsageFigures

_numbers = itertools.count(1)


def use(user: User, at: datetime | None = None, key: ApiKey | None = None, **changes: Any) -> None:
    figures = {"model_name": "m", "endpoint": "chat.completions", "status": 200, "outcome": "completed"}
    values = {**figures, "prompt_tokens": 10, "completion_tokens": 5, **changes}
    usage = UsageFigures(**values, created_at=at or timezone.now())
    quota.settle(Settlement(f"page-{next(_numbers)}", user.wallet.pk, usage, key.pk if key else None))


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def heights(text: str) -> list[list[float]]:
    """Of the bars of each chart."""
    charts = re.findall(r"<svg class=\"bar-chart\".*?</svg>", text, re.DOTALL)
    return [[float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', chart)] for chart in charts]


def test_it_is_for_whoever_is_logged_in(db: None) -> None:
    assert Client().get("/account/usage").headers["Location"].startswith("/login")


def test_nothing_used_yet(user: User) -> None:
    text = logged_in(user).get("/account/usage").content.decode()
    assert "Nothing used yet" in text
    assert '<svg class="bar-chart"' not in text


def test_own_use_by_model_and_key(user: User, operator: User) -> None:
    key = ApiKey.objects.create(user=user, name="<nightly>", hash="h", prefix="sk-abcdef", last4="wxyz")
    use(user, model_name="small")
    use(user, model_name="large", key=key, first_token_ms=400)
    use(operator, model_name="secret")
    page = logged_in(user).get("/account/usage")
    assert (page.context["total"].requests, page.context["total"].prompt) == ("2", "20")
    text = page.content.decode()
    names = re.findall(r'<th scope="row">([^<]*)', text)
    assert sorted(names[:2]) == ["large", "small"]
    assert sorted(names[2:]) == ["&lt;nightly&gt;", "Without a key"]
    assert "secret" not in text
    assert len(heights(text)) == 3  # requests, tokens, cost
    assert "onload" not in text
    assert "style=" not in text


def test_bars_scale_to_the_highest_and_any_use_shows(user: User) -> None:
    use(user, prompt_tokens=900)
    use(user, timezone.now() - timedelta(days=2), prompt_tokens=1, completion_tokens=0)
    [_requests, tokens, _cost] = heights(logged_in(user).get("/account/usage").content.decode())
    assert tokens == [2.0, 132.0]


def test_tokens_that_cost_nothing_have_no_chart_of_their_cost(user: User, settings) -> None:
    settings.TOKEN_PRICE = 0
    use(user)
    assert len(heights(logged_in(user).get("/account/usage").content.decode())) == 2


def test_a_month_can_be_chosen(user: User, settings) -> None:
    settings.TIME_ZONE = "Asia/Shanghai"
    shanghai = ZoneInfo("Asia/Shanghai")
    for day in (datetime(2026, 2, 1, tzinfo=shanghai), datetime(2026, 2, 28, 23, 59, tzinfo=shanghai)):
        use(user, day, model_name="february")
    use(user, datetime(2026, 3, 1, tzinfo=shanghai), model_name="march")
    client = logged_in(user)
    page = client.get("/account/usage?month=2026-02")
    assert [line.name for line in page.context["tables"][0]["lines"]] == ["february"]
    assert page.context["total"].requests == "2"
    assert page.context["months"][-1][0] == "2026-02"
    assert '<option value="2026-02" selected>' in page.content.decode()
    assert '<option value="2025-02" selected>' in client.get("/account/usage?month=2025-02").content.decode()
    day_csv = client.get(page.context["day_csv"])
    rows = list(csv.DictReader(io.StringIO(day_csv.getvalue().decode("utf-8-sig"))))
    assert [row["name"] for row in rows] == ["2026-02-01", "2026-02-28"]
    request_csv = client.get(page.context["request_csv"])
    rows = list(csv.DictReader(io.StringIO(request_csv.getvalue().decode("utf-8-sig"))))
    assert [row["model"] for row in rows] == ["february", "february"]


def rows_of(client: Client, address: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(client.get(address).getvalue().decode("utf-8-sig"))))


def test_an_operators_own_files_hold_nobody_elses_use(user: User, operator: User) -> None:
    use(user, model_name="secret")
    use(operator, model_name="own")
    client = logged_in(operator)
    page = client.get("/account/usage")
    assert [row["requests"] for row in rows_of(client, page.context["day_csv"])] == ["1"]
    assert [row["model"] for row in rows_of(client, page.context["request_csv"])] == ["own"]


def test_the_file_by_day_has_the_days_of_the_readers_zone(user: User) -> None:
    use(user, datetime(2026, 2, 10, 20, tzinfo=UTC))
    client = logged_in(user)
    client.cookies["timezone"] = "Asia/Shanghai"
    page = client.get("/account/usage?month=2026-02")
    assert [row["name"] for row in rows_of(client, page.context["day_csv"])] == ["2026-02-11"]


@pytest.mark.parametrize("view", ["day_csv", "request_csv"])
def test_files_are_marked_for_excel_and_name_the_unit(user: User, view: str) -> None:
    use(user)
    client = logged_in(user)
    head = client.get(client.get("/account/usage").context[view]).getvalue().decode().splitlines()[0]
    assert head.startswith("\ufeff")
    assert "cost_micro_credits" in head.split(",")


@pytest.mark.parametrize("month", ["2026", "2026-13", "0001-01", "9999-12", "x", "2026-02-03", "%00", "२०२६-०१"])
def test_a_month_that_is_none(user: User, month: str) -> None:
    answer = logged_in(user).get(f"/account/usage?month={month}")
    assert answer.status_code == 400
    assert "Write days as" in answer.content.decode()


def test_as_many_queries_for_much_use(user: User, django_assert_max_num_queries) -> None:
    for hours in range(60):
        use(user, timezone.now() - timedelta(hours=9 * hours), model_name=f"m{hours % 7}")
    client = logged_in(user)
    with django_assert_max_num_queries(7):
        client.get("/account/usage")
