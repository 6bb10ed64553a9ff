"""POST /api/v1/redeem."""

from __future__ import annotations

import pytest

from accounts import credits
from accounts.attempts import PER_WINDOW

pytestmark = pytest.mark.django_db
PATH = "/api/v1/redeem"
START = 1000 * 1000


@pytest.fixture
def as_user(client, user):
    client.force_authenticate(user)
    return client


def redeem(client, code, **more):
    return client.post(PATH, {"code": code, **more}, format="json")


def test_the_balance_grows_once(as_user):
    _batch, [code] = credits.make_codes("Term", 1, 5000)
    answer = redeem(as_user, code.lower())
    assert answer.status_code == 200
    assert answer.json()["amount"] == 5000
    assert answer.json()["user"]["balance"]["available"] == START + 5000
    again = redeem(as_user, code)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "code_used")


def test_an_unknown_and_a_revoked_code_read_the_same(as_user):
    batch, [code] = credits.make_codes("Term", 1, 5000)
    credits.revoke_codes(batch)
    answers = [redeem(as_user, "no-such-code"), redeem(as_user, code)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(
    "body", [{}, {"code": ""}, {"code": 5, "more": 1}, {"code": "x" * 201}, {"code": "a\x00b"}, []]
)
def test_what_is_no_request(as_user, body):
    assert as_user.post(PATH, body, format="json").status_code == 400


def test_codes_cannot_be_guessed_by_the_thousand(as_user):
    answers = [redeem(as_user, f"guess-{number}").status_code for number in range(PER_WINDOW + 1)]
    assert answers == [404] * PER_WINDOW + [429]


def test_a_balance_that_would_be_too_large_keeps_the_code(as_user, user):
    _batch, [code] = credits.make_codes("Term", 1, 10**15)
    type(user.wallet).objects.filter(pk=user.wallet.pk).update(available=10**18)
    assert redeem(as_user, code).status_code == 409
    assert credits.RedeemCode.objects.get().used_at is None
