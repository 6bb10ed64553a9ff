"""POST /api/v1/users/{id}/credits."""

from __future__ import annotations

import pytest

from accounts.ledger_checks import ledger_problems
from accounts.models import AuditEntry, LedgerEntry, User

pytestmark = pytest.mark.django_db
START = 1_000_000


def url(user: User) -> str:
    return f"/api/v1/users/{user.pk}/credits"


def test_an_administrator_tops_up_and_corrects(as_user, admin: User, user: User) -> None:
    client = as_user(admin)
    answer = client.post(url(user), {"amount": 500, "note": "March"}, format="json")
    assert answer.status_code == 200
    assert answer.json()["balance"]["available"] == START + 500
    assert client.post(url(user), {"amount": -500}, format="json").json()["balance"]["available"] == START
    kinds = LedgerEntry.objects.filter(wallet=user.wallet).order_by("pk").values_list("kind", "note")
    assert list(kinds) == [("grant", "DEFAULT_TOKENS"), ("topup", "March"), ("adjust", "")]
    assert ledger_problems() == []


def test_more_than_there_is_cannot_be_taken(as_user, admin: User, user: User) -> None:
    answer = as_user(admin).post(url(user), {"amount": -START - 1}, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "insufficient_quota")


def test_with_an_idempotency_key_it_is_done_once(as_user, admin: User, user: User, make_user) -> None:
    client = as_user(admin)

    def ask(amount: int, key: str = "a", note: str = "March", whose: User = user):
        return client.post(url(whose), {"amount": amount, "note": note}, format="json", HTTP_IDEMPOTENCY_KEY=key)

    first = ask(500)
    again = ask(500)
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.json()["balance"]["available"] == START + 500
    for other in (ask(501), ask(-500), ask(500, note="April")):
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_used")
    taken = [ask(-200, key="b") for _twice in range(2)]
    assert [answer.json()["balance"]["available"] for answer in taken] == [START + 300] * 2
    assert ask(500, whose=make_user()).json()["balance"]["available"] == START + 500, "another user's is another change"
    assert ask(500, key="c" * 255).json()["balance"]["available"] == START + 800
    entries = LedgerEntry.objects.filter(wallet=user.wallet).exclude(kind="grant")
    assert [entry.available_change for entry in entries.order_by("pk")] == [500, -200, 500]
    assert AuditEntry.objects.filter(action__startswith="balance.", target_id=str(user.pk)).count() == 3
    assert ledger_problems() == []


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_what_is_no_idempotency_key(as_user, admin: User, user: User, key: str) -> None:
    answer = as_user(admin).post(url(user), {"amount": 1}, format="json", HTTP_IDEMPOTENCY_KEY=key)
    assert (answer.status_code, list(answer.json()["error"]["details"])) == (400, ["Idempotency-Key"])


@pytest.mark.parametrize("amount", [0, 10**15 + 1, "x", 1.5, None, True, [], 10**400, "9" * 5000])
def test_what_is_no_amount(as_user, admin: User, user: User, amount: object) -> None:
    answer = as_user(admin).post(url(user), {"amount": amount}, format="json")
    assert answer.status_code == 400
    assert list(answer.json()["error"]["details"]) == ["amount"]
    user.wallet.refresh_from_db()
    assert user.wallet.available == START


def test_nobody_else_may(as_user, operator: User, user: User) -> None:
    for caller in (operator, user):
        assert as_user(caller).post(url(user), {"amount": 1}, format="json").status_code == 403


@pytest.mark.parametrize("user_id", ["999999", str(10**30)])
def test_an_unknown_user(as_user, admin: User, user_id: str) -> None:
    answer = as_user(admin).post(f"/api/v1/users/{user_id}/credits", {"amount": 1}, format="json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
