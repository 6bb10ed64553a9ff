"""Prices and limits of models, balances, and the ledger, in the console."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import QuerySet
from django.test import Client
from django.utils import timezone

from accounts import prices, quota
from accounts.models import LedgerEntry, ModelPolicy, User, Wallet
from tests.console.conftest import in_dialog, logged_in, make_group, make_key, make_model, person

PRICES = "/admin/accounts/modelpolicy/"
LEDGER = "/admin/accounts/ledgerentry/"


# -- prices --------------------------------------------------------------------------------------------------------


def test_all_models_are_listed_with_and_without_rules(as_administrator: Client):
    make_model("tiny")
    make_model("large")
    prices.set_policy("large", {"prompt_price": 500, "completion_price": 0, "requests_per_minute": 60})
    prices.set_policy("gone", {"prompt_price": 7})
    page = as_administrator.get(PRICES).content.decode()
    rows = {row["name"]: row for row in as_administrator.get(PRICES).context["rows"]}
    assert [price["thousand"] for price in rows["large"]["prices"]] == ["0.50", "0.50", "free"]
    assert rows["large"]["prices"][0]["million"] == "500 for 1 million"
    assert rows["large"]["limits"] == "60 requests a minute"
    assert [price["thousand"] for price in rows["tiny"]["prices"]] == ["1.00", "1.00", "1.00"]
    assert (rows["tiny"]["own"], rows["gone"]["exists"]) == (False, False)
    assert "does not exist now" in page


def test_a_price_is_set_in_credits_for_a_million_tokens(as_administrator: Client):
    make_model("tiny")
    path = f"{PRICES}set/?model=tiny"
    data = {"prompt_price": "500", "cached_price": "", "completion_price": "1500", "tokens_per_minute": "9000"}
    assert as_administrator.post(path, data).status_code == 302
    policy = prices.policies()["tiny"]
    assert (policy.price, policy.limit.tokens) == (prices.Price(500, 500, 1500), 9000)
    form = as_administrator.get(path).context["form"]
    assert (form["prompt_price"].value(), form["cached_price"].value(), form["tokens_per_minute"].value()) == (
        500,
        None,
        9000,
    )
    as_administrator.post(path, {"prompt_price": ""})
    assert prices.policies()["tiny"] == prices.default_policy()


@pytest.mark.parametrize("value", ["-1", "1.5", "x", str(10**9 + 1)])
def test_a_wrong_price_is_said_beside_its_field(as_administrator: Client, value: str):
    make_model("tiny")
    answer = as_administrator.post(f"{PRICES}set/?model=tiny", {"prompt_price": value})
    assert list(answer.context["form"].errors) == ["prompt_price"]
    assert not ModelPolicy.objects.exists()


@pytest.mark.parametrize("model", ["", "nobody", "a%00b", "../x"])
def test_a_model_that_never_was_has_no_price(as_administrator: Client, model: str):
    assert as_administrator.get(f"{PRICES}set/?model={model}").status_code == 404
    assert as_administrator.post(f"{PRICES}set/?model={model}", {"prompt_price": "1"}).status_code == 404
    assert not ModelPolicy.objects.exists()


def test_operators_set_no_prices(operator: User):
    make_model("tiny")
    assert logged_in(operator).get(f"{PRICES}set/?model=tiny").status_code == 403
    assert logged_in(operator).post(f"{PRICES}set/?model=tiny", {"prompt_price": "1"}).status_code == 403


# -- balances ------------------------------------------------------------------------------------------------------


def test_balances_are_changed_on_their_own_page_too(as_administrator: Client, user: User):
    path = f"/admin/accounts/wallet/{user.wallet.pk}"
    in_dialog(as_administrator, f"{path}/top_up/", credits="4")
    in_dialog(as_administrator, f"{path}/correct/", credits="-1", note="mistake")
    user.wallet.refresh_from_db()
    assert user.wallet.available == 4_000_000
    assert "4.00" in as_administrator.get(f"{path}/change/").content.decode()


def test_balances_are_filtered_and_take_few_queries(as_administrator: Client, django_assert_max_num_queries):
    make_group(service=True)
    for number in range(30):
        person(f"u{number:02}")
    Wallet.objects.filter(user__username="u00").update(available=0)
    with django_assert_max_num_queries(5):
        page = as_administrator.get("/admin/accounts/wallet/").content.decode()
    assert "u29" in page
    shown = as_administrator.get("/admin/accounts/wallet/?left=none").context["cl"].result_list
    assert [wallet.user.username for wallet in shown] == ["u00"]


# -- ledger --------------------------------------------------------------------------------------------------------


def entries(client: Client, query: str = "") -> list[LedgerEntry]:
    return list(client.get(LEDGER + query, follow=True).context["cl"].result_list)


def use(user: User, request_id: str, tokens: int, key_id: int | None = None) -> None:
    price = prices.Price(1000, 1000, 1000)
    quota.hold(
        quota.HoldRequest(
            request_id, user.wallet.pk, "tiny", prompt_bound=10, max_tokens=90, price=price, key_id=key_id
        )
    )
    figures = quota.UsageFigures(
        model_name="tiny", endpoint="chat", status=200, outcome="completed", completion_tokens=tokens
    )
    quota.settle(quota.Settlement(request_id, user.wallet.pk, figures, price=price, key_id=key_id))


def test_filters(as_administrator: Client, user: User):
    key = make_key(user)
    use(user, "req-a", 5, key.pk)
    use(user, "req-b", 5)
    quota.top_up(user.wallet, 5)
    assert len(entries(as_administrator, f"?owner={user.pk}")) == 6
    assert {entry.request_id for entry in entries(as_administrator, f"?key={key.pk}")} == {"req-a"}
    assert [entry.kind for entry in entries(as_administrator, f"?owner={user.pk}&kind=topup")] == ["topup"]
    assert {entry.kind for entry in entries(as_administrator, "?kind=given")} == {"grant", "topup"}
    QuerySet(LedgerEntry).filter(kind="grant").update(created_at=timezone.now() - timedelta(days=2))
    assert "grant" not in {entry.kind for entry in entries(as_administrator, f"?owner={user.pk}&since=24")}
    assert entries(as_administrator, "?owner=x") == entries(as_administrator, "?key=999999") == []


def test_the_sum_is_the_balance(as_administrator: Client, user: User):
    use(user, "req-a", 5)
    quota.hold(quota.HoldRequest("req-open", user.wallet.pk, "tiny", 10, 90, price=prices.Price(1000, 1000, 1000)))
    page = as_administrator.get(f"{LEDGER}?owner={user.pk}").content.decode()
    assert "Sum of all entries of ben: available 0.895, held 0.10 credits." in page
    assert "The balance says: available 0.895, held 0.10." in page
    assert ">equal<" in page
    Wallet.objects.filter(user=user).update(available=1)
    assert ">not equal<" in as_administrator.get(f"{LEDGER}?owner={user.pk}").content.decode()


def test_the_sum_of_a_choice(as_administrator: Client, user: User):
    for amount in (1_000_000, 2_500_000):
        quota.top_up(user.wallet, amount)
    page = as_administrator.get(f"{LEDGER}?owner={user.pk}&kind=topup").content.decode()
    assert "Sum of the entries of ben chosen here: available 3.50, held 0.00" in page
    assert "The balance says" not in page


def test_too_many_to_add_up_on_a_page(as_administrator: Client, user: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("accounts.admin.ledger.ADDED_UP", 2)
    for _number in range(2):
        quota.top_up(user.wallet, 1)
    assert "ledgercheck" in as_administrator.get(f"{LEDGER}?owner={user.pk}").content.decode()


def test_csv_holds_what_the_filters_leave(as_administrator: Client, user: User, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("accounts.admin.ledger.CSV_PAGE", 2)
    for number in range(5):
        quota.top_up(user.wallet, number + 1, note="=1+1")
    path = f"{LEDGER}ledger.csv?owner={user.pk}&kind=topup"
    content = b"".join(as_administrator.get(path).streaming_content).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content)))
    assert [row["available_change_micro_credits"] for row in rows] == ["5", "4", "3", "2", "1"]
    assert {row["note"] for row in rows} == {"'=1+1"}
    page = as_administrator.get(f"{LEDGER}?owner={user.pk}&kind=topup").content.decode()
    assert f'href="{LEDGER}ledger.csv?owner={user.pk}&amp;kind=topup"' in page


def test_csv_is_for_administrators(operator: User, user: User):
    assert logged_in(operator).get(f"{LEDGER}ledger.csv").status_code == 403
    assert logged_in(user).get(f"{LEDGER}ledger.csv", follow=True).status_code == 403


def plan_of(client: Client, query: str) -> str:
    """How SQLite would find the page's rows."""
    rows = client.get(LEDGER + query, follow=True).context["cl"].queryset[:50]
    return rows.explain()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's words for it")
def test_no_filter_reads_the_whole_table(as_administrator: Client, user: User):
    key = make_key(user)
    assert "ledger_by_wallet_and_time" in plan_of(as_administrator, f"?owner={user.pk}")
    assert "ledger_by_wallet_and_time" in plan_of(as_administrator, f"?owner={user.pk}&kind=topup")
    assert "ledger_given" in plan_of(as_administrator, "?kind=given")
    assert "ledger_given" in plan_of(as_administrator, "?kind=adjust")
    assert "ledger_by_wallet_and_time" in plan_of(as_administrator, f"?key={key.pk}")
