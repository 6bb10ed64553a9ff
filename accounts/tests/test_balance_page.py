"""/account/balance: what is there, what became of it, and redeeming a code."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import credits, ledger_notes, quota
from accounts.attempts import PER_WINDOW
from accounts.models import Wallet
from accounts.quota import HoldRequest, Settlement, UsageFigures

pytestmark = pytest.mark.django_db
PATH = "/account/balance"
PRICE = 1000


@pytest.fixture(autouse=True)
def _pages(settings):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture
def page(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def lines(answer) -> list[tuple[str, str, str]]:
    return [(line.kind, line.about, line.change) for line in answer.context["lines"]]


def use(user, name: str, tokens: int) -> None:
    quota.hold(HoldRequest(name, user.wallet.pk, "tiny", tokens, 100))
    figures = UsageFigures(model_name="tiny", endpoint="e", status=200, outcome="completed", prompt_tokens=tokens)
    quota.settle(Settlement(name, user.wallet.pk, figures))


def test_whoever_is_not_logged_in_is_sent_to_the_door():
    assert Client().get(PATH).headers["Location"].startswith("/login")


def test_what_requests_cost_and_what_came_in(page, user):
    use(user, "r1", 250)
    quota.top_up(user.wallet, 2_000_000, "for the course")
    answer = page.get(PATH)
    assert lines(answer) == [
        ("top-up", "for the course", "+2.00"),
        ("request", "tiny", "−0.25"),
        ("grant", "starting balance", "+1.00"),
    ]
    assert answer.context["credits"] == "2.75"


def test_notes_and_figures_are_in_the_readers_language(page, user):
    """Whoever gave it had another language."""
    quota.top_up(user.wallet, 1_234_567_000_000, ledger_notes.by("root"))
    answer = page.get(PATH, headers={"Accept-Language": "zh-CN"})
    assert lines(answer)[0][1:] == ("操作人：root", "+1,234,567.00")
    assert lines(answer)[1][1] == "初始余额"


def test_a_slash_too_many_leads_to_the_account(page):
    assert page.get("/account/").headers["Location"] == "/account"


def test_nobody_elses(page, make_user):
    other = make_user()
    quota.top_up(other.wallet, 5, "secret note")
    assert "secret note" not in page.get(PATH).content.decode()


def test_a_code_is_redeemed_once_and_told(page, user):
    _batch, [code] = credits.make_codes("Term", 1, 3_000_000)
    answer = page.post(PATH, {"code": code}, follow=True)
    assert "3 credits were added" in answer.content.decode()
    again = page.post(PATH, {"code": code})
    assert again.status_code == 400
    assert "used already" in again.content.decode()
    assert Wallet.objects.get(user=user).available == 4_000_000


@pytest.mark.parametrize("code", ["", "wrong", "x" * 500, "<b>"])
def test_what_is_no_code(page, user, code):
    answer = page.post(PATH, {"code": code})
    assert answer.status_code == 400
    assert answer.context["form"].errors["code"]
    assert Wallet.objects.get(user=user).available == 1_000_000


def test_guessing_is_held_up(page):
    for _number in range(PER_WINDOW):
        page.post(PATH, {"code": "wrong"})
    assert page.post(PATH, {"code": "wrong"}).status_code == 429


def test_what_expires_is_told_as_it_is_now(page, user):
    quota.top_up(user.wallet, 500 * PRICE, expires_at=timezone.now() + timedelta(days=9))
    use(user, "r1", 200)
    answer = page.get(PATH)
    assert [lot["credits"] for lot in answer.context["lots"]] == ["0.3"]


def test_the_allowance_is_told_with_its_next_day(page, user):
    credits.set_allowance(user.wallet, 5_000_000, "week")
    answer = page.get(PATH)
    assert answer.context["allowance"]["credits"] == "5"
    assert "every week" in answer.content.decode()


def test_older_entries_are_on_further_pages_each_once(page, user):
    for number in range(120):
        quota.top_up(user.wallet, 1000, f"n{number}")
    seen, path = [], PATH
    while path:
        answer = page.get(path)
        seen += [line.about for line in answer.context["lines"]]
        path = f"{PATH}?after={answer.context['next']}" if answer.context["next"] else ""
    assert seen == [*(f"n{number}" for number in reversed(range(120))), "starting balance"]


def test_a_page_mark_that_is_none_shows_the_newest(page):
    assert page.get(f"{PATH}?after=nonsense").status_code == 200


def test_a_page_costs_few_queries_however_much_there_is(page, user, django_assert_max_num_queries):
    for number in range(60):
        quota.top_up(user.wallet, 1000, f"n{number}")
    with django_assert_max_num_queries(7):
        page.get(PATH)
