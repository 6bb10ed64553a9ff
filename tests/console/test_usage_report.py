"""The console's usage report: who used how much in which period, chosen by links."""

from __future__ import annotations

import csv
import html
import io
import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.test import Client
from django.utils import timezone

from accounts import quota
from accounts.models import ApiKey, Group, User
from accounts.quota import Settlement, UsageFigures
from tests.console.conftest import make_group, person

REPORT = "/admin/usage/"
_numbers = itertools.count(1)


def use(user: User, at: datetime | None = None, key: ApiKey | None = None, **changes: Any) -> None:
    figures = {"model_name": "tiny", "endpoint": "chat.completions", "status": 200, "outcome": "completed"}
    values = {**figures, "prompt_tokens": 10, "completion_tokens": 5, **changes}
    usage = UsageFigures(**values, created_at=at or timezone.now())
    quota.settle(Settlement(f"report-{next(_numbers)}", user.wallet.pk, usage, key.pk if key else None))


def last_month() -> datetime:
    return timezone.now().replace(day=1, hour=12) - timedelta(days=3)


def names(text: str) -> list[str]:
    """What stands in the first column, the total left out."""
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    return [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r'<th scope="row">(?:<a [^>]*>)?([^<]*)', body)]


ICON = re.compile(r'<span class="material-symbols-outlined[^>]*>[^<]*</span>')


def link(text: str, title: str) -> str:
    """Where the link with this text leads; one of the report itself before one of the menu."""
    text = text.partition("c-report")[2] + text
    links = re.findall(r'<a [^>]*href="([^"]*)"[^>]*>(.*?)</a>', ICON.sub("", text), re.DOTALL)
    found = [address for address, inside in links if re.sub(r"<[^>]*>", "", inside).strip() == title]
    assert found, title
    return html.unescape(found[0])


def follow(client: Client, path: str, *titles: str) -> str:
    """The page reached by clicking links one after the other."""
    text = client.get(path).content.decode()
    for title in titles:
        address = link(text, title)
        path = REPORT + address if address.startswith("?") else address
        answer = client.get(path)
        assert answer.status_code == 200
        text = answer.content.decode()
    return text


def test_last_months_ten_largest_users_are_two_clicks_away(as_operator: Client) -> None:
    for number in range(12):
        use(person(f"user{number:02}"), last_month(), completion_tokens=10 * number)
    use(person("newcomer"), completion_tokens=500)
    text = follow(as_operator, "/admin/", "Usage report", "Last month")
    assert names(text) == [f"user{number:02}" for number in range(11, 1, -1)]
    assert "2 more are not shown." in text
    assert names(follow(as_operator, "/admin/", "Usage report", "Last month", "All"))[-1] == "user00"


def test_a_row_leads_to_what_it_is_made_of(as_operator: Client, user: User) -> None:
    user.group = Group.objects.create(name="Physics")
    user.save()
    key = ApiKey.objects.create(user=user, name="notebook", hash="h", prefix="sk-abcdef", last4="wxyz")
    use(user, key=key, model_name="small")
    use(user, model_name="large", prompt_tokens=50)
    use(person("other"), model_name="other-model")
    start = follow(as_operator, REPORT)
    assert names(start) == ["ben", "other"]
    assert names(follow(as_operator, REPORT, "ben")) == ["large", "small"]
    assert names(follow(as_operator, REPORT, "ben", "API keys")) == ["Without a key", "notebook"]
    assert names(follow(as_operator, REPORT, "API keys", "notebook")) == ["small"]
    assert names(follow(as_operator, REPORT, "Models", "large")) == ["ben"]
    assert names(follow(as_operator, REPORT, "Groups", "Physics")) == ["ben"]
    assert names(follow(as_operator, REPORT, "Groups", "Without a group")) == ["other"]
    assert names(follow(as_operator, REPORT, "ben", "user: ben")) == ["large", "other-model", "small"]


def test_a_day_leads_to_who_used_something_on_it(as_operator: Client, user: User) -> None:
    use(user, timezone.now() - timedelta(days=2))
    use(person("other"))
    [earlier, _today] = names(follow(as_operator, REPORT, "Days"))
    assert names(follow(as_operator, REPORT, "Days", earlier)) == ["ben"]


def test_columns_sort(as_operator: Client, user: User) -> None:
    use(user, prompt_tokens=500)
    for _ in range(2):
        use(person(f"other{_}"), outcome="failed", status=502)
    use(User.objects.get(username="other1"), outcome="failed", status=502)
    assert names(follow(as_operator, REPORT)) == ["ben", "other1", "other0"]
    assert names(follow(as_operator, REPORT, "Failed"))[0] == "other1"
    assert names(follow(as_operator, REPORT, "Name")) == ["ben", "other0", "other1"]


def test_own_dates(as_operator: Client, user: User) -> None:
    use(user, timezone.now().replace(year=2024, month=2, day=29))
    assert names(follow(as_operator, f"{REPORT}?since=2024-02-29&until=2024-02-29")) == ["ben"]
    assert names(follow(as_operator, f"{REPORT}?since=2024-03-01&until=2024-03-02")) == []


@pytest.mark.parametrize(
    "query", ["period=never", "since=x", "since=2026-02-30", "since=2026-03-02&until=2026-03-01", "since=2020-01-01"]
)
def test_a_period_that_is_none_is_said(as_operator: Client, user: User, query: str) -> None:
    use(user)
    answer = as_operator.get(f"{REPORT}?{query}")
    assert answer.status_code == 400
    assert 'role="alert"' in answer.content.decode()
    assert names(answer.content.decode()) == ["ben"]  # the usual period instead


@pytest.mark.parametrize(
    "query",
    ["by=x", "by=hour", "top=x", "sort=x", "user=x", "user=-1", f"user={10**30}", "key=%00", "model=%00", "group=५"],
)
def test_what_is_not_understood_is_left_out(as_operator: Client, user: User, query: str) -> None:
    use(user)
    assert names(follow(as_operator, f"{REPORT}?{query}")) == ["ben"]


def test_the_file_holds_what_the_page_shows(as_operator: Client, user: User) -> None:
    use(user, model_name="=large", prompt_tokens=50)
    use(user, model_name="small")
    use(person("other"), model_name="other-model")
    text = follow(as_operator, f"{REPORT}?user={user.pk}&by=model")
    rows = list(
        csv.DictReader(io.StringIO(as_operator.get(link(text, "Download (CSV)")).getvalue().decode("utf-8-sig")))
    )
    assert [(row["name"], row["tokens"]) for row in rows] == [("'=large", "55"), ("small", "15")]


def test_the_file_of_a_deleted_group(as_operator: Client, user: User) -> None:
    group = make_group("gone")
    User.objects.filter(pk=user.pk).update(group=group)
    use(user)
    number = group.pk
    User.objects.filter(pk=user.pk).update(group=None)
    group.delete()
    text = follow(as_operator, f"{REPORT}?group={number}&by=model")
    assert as_operator.get(link(text, "Download (CSV)")).status_code == 200


def test_the_file_by_day_has_the_days_of_the_page(as_operator: Client, user: User) -> None:
    use(user, datetime(2026, 2, 10, 20, tzinfo=UTC))
    as_operator.cookies["timezone"] = "Asia/Shanghai"
    text = follow(as_operator, f"{REPORT}?since=2026-02-01&until=2026-02-28&by=day")
    content = as_operator.get(link(text, "Download (CSV)")).getvalue().decode("utf-8-sig")
    assert [row["name"] for row in csv.DictReader(io.StringIO(content))] == ["2026-02-11"]


def test_single_requests_of_the_report(as_operator: Client, user: User) -> None:
    use(user, model_name="small")
    use(user, timezone.now() - timedelta(days=40), model_name="small")
    use(user, model_name="large")
    use(person("other"), model_name="small")
    text = follow(as_operator, f"{REPORT}?user={user.pk}&model=small")
    answer = as_operator.get(link(text, "Single requests"))
    assert answer.status_code == 200
    assert [(one.username, one.model_name) for one in answer.context["cl"].result_list] == [("ben", "small")]


@pytest.mark.parametrize("what", ["key", "group"])
def test_single_requests_without_a_key_or_group(as_operator: Client, user: User, what: str) -> None:
    use(user, model_name="small")
    user.group = Group.objects.create(name="Physics")
    user.save()
    key = ApiKey.objects.create(user=user, name="notebook", hash="h", prefix="sk-abcdef", last4="wxyz")
    use(user, model_name="large", key=key)
    answer = as_operator.get(link(follow(as_operator, f"{REPORT}?{what}=0"), "Single requests"))
    assert [one.model_name for one in answer.context["cl"].result_list] == ["small"]


def test_charts_show_days_or_the_hours_of_a_short_period(as_operator: Client, user: User) -> None:
    use(user)
    month, day = follow(as_operator, REPORT), follow(as_operator, REPORT, "Today")
    assert "in one day" in month
    assert "in one hour" in day
    assert month.count('<svg class="c-chart"') == day.count('<svg class="c-chart"') == 2


def test_the_first_and_the_last_hour_of_a_day_are_drawn(as_operator: Client, user: User) -> None:
    yesterday = timezone.now() - timedelta(days=1)
    for hour in (0, 23):
        use(user, yesterday.replace(hour=hour, minute=0, second=0, microsecond=0))
    text = follow(as_operator, REPORT, "Yesterday")
    [first, *_more] = re.findall(r'<svg class="c-chart".*?</svg>', text, re.DOTALL)
    assert first.count("<title>") == 2


def test_nothing_was_used(as_operator: Client) -> None:
    assert "Nothing was used" in follow(as_operator, REPORT)


def test_hostile_names_stay_text(as_operator: Client, user: User) -> None:
    use(user, model_name='"><script>alert(1)</script>')
    text = follow(as_operator, f"{REPORT}?by=model")
    assert "<script>alert" not in text
    assert "<script>alert" not in as_operator.get(f"{REPORT}?model=%22%3E%3Cscript%3Ealert(1)").content.decode()


def test_few_queries_however_many_people(as_operator: Client, django_assert_max_num_queries) -> None:
    for number in range(30):
        use(person(f"user{number}"))
    as_operator.get(REPORT)
    with django_assert_max_num_queries(6):
        as_operator.get(f"{REPORT}?top=50")


def test_the_menu_marks_this_page_and_no_other(as_operator: Client) -> None:
    marked = re.findall(r'<a href="(/admin/[^"]*)"[^>]*class="[^"]*\bactive\b', follow(as_operator, REPORT))
    assert marked == [REPORT]


def test_a_link_keeps_what_else_is_chosen(as_operator: Client, user: User) -> None:
    text = follow(as_operator, f"{REPORT}?period=last_month&by=model&top=50&user={user.pk}")
    query = {name: value for name, [value] in parse_qs(link(text, "This month")[1:]).items()}
    assert query == {"period": "this_month", "by": "model", "top": "50", "user": str(user.pk)}
