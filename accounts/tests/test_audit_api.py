"""The audit log by REST: its filters, pages and CSV."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts import keys, quota
from accounts.models import ApiKey, AuditEntry, User
from accounts.tests.test_audit import last, log_in
from llmplatform.lib import audit

pytestmark = pytest.mark.django_db
URL = "/api/v1/audit"


def results(client: APIClient, query: str = "") -> list[dict[str, Any]]:
    answer = client.get(URL + query)
    assert answer.status_code == 200, answer.json()
    return answer.json()["results"]


def test_one_row(as_user, admin: User) -> None:
    as_user(admin).patch("/api/v1/auth/me", {"language": "en"}, format="json")
    row = results(as_user(admin))[0]
    assert row == {
        "id": last().pk,
        "time": row["time"],
        "who": "anna",
        "key": "",
        "address": "127.0.0.1",
        "area": "people",
        "action": "user.update",
        "type": "user",
        "object_id": str(admin.pk),
        "name": "anna",
        "changes": {"language": ["", "en"]},
    }


def test_filters(as_user, admin: User, user: User) -> None:
    quota.top_up(user.wallet, 5)
    client = as_user(admin)
    client.post(f"/api/v1/users/{user.pk}/credits", {"amount": 7}, format="json")
    log_in(client, "bob")
    assert [row["action"] for row in results(client, "?area=money")] == ["balance.topup"] * 2
    assert [row["action"] for row in results(client, "?action=user.login_failed")] == ["user.login_failed"]
    assert [row["changes"]["amount"] for row in results(client, "?who=ANNA")] == [[None, 7]]
    assert {row["name"] for row in results(client, f"?type=user&id={user.pk}")} == {"bob"}
    assert len(results(client, "?name=bob")) == 4
    assert {row["action"] for row in results(client, "?name=ann")} == {"balance.topup", "user.create"}
    assert results(client, "?type=node") == []
    program = audit.actor().name  # what the test itself did
    assert {row["who"] for row in results(client, f"?who={program.partition(':')[0]}:")} == {program}
    assert {row["who"] for row in results(client, f"?who={program}")} == {program}
    assert results(client, f"?who={program}s") == []
    assert [row["action"] for row in results(client, "?address=127.0.0.1")] == [
        "user.login_failed",
        "balance.topup",
    ]
    assert results(client, "?address=::ffff:127.0.0.1") == results(client, "?address=127.0.0.1")
    assert results(client, "?address=10.0.0.1") == results(client, "?key=5") == []
    tomorrow = (timezone.now() + timedelta(days=1)).isoformat().replace("+00:00", "Z")
    assert results(client, f"?since={tomorrow}") == []
    assert len(results(client, f"?until={tomorrow}")) == AuditEntry.objects.count()


def test_what_was_done_with_a_key(as_user, admin: User) -> None:
    key, _secret = keys.create_key(admin, keys.NewKey(name="build"))
    with audit.acting(lambda: audit.Actor(admin.pk, "anna", key.pk)):
        audit.record("model.restart", "model", 1, "tiny")
    assert [row["action"] for row in results(as_user(admin), f"?key={key.pk}")] == ["model.restart"]
    assert results(as_user(admin), f"?key={key.pk + 1}") == []


def test_pages(as_user, admin: User) -> None:
    for number in range(5):
        audit.record("model.restart", "model", number, f"m{number}")
    client = as_user(admin)
    seen, cursor = [], ""
    while cursor is not None:
        answer = client.get(f"{URL}?limit=2&type=model{cursor and f'&cursor={cursor}'}").json()
        seen += [row["name"] for row in answer["results"]]
        cursor = answer["next"]
        audit.record("model.restart", "model", 9, "later")
    assert seen == ["m4", "m3", "m2", "m1", "m0"]


@pytest.mark.parametrize(
    "query",
    [
        "who=nobody",
        "id=5",
        "area=all",
        "cursor=x",
        "limit=0",
        "since=yesterday",
        "format=xml",
        "foo=1",
        "name=%00",
        "address=here",
        "key=mine",
        "key=0",
    ],
)
def test_a_query_that_is_not_understood(as_user, admin: User, query: str) -> None:
    answer = as_user(admin).get(f"{URL}?{query}")
    assert answer.status_code == 400
    assert list(answer.json()["error"]["details"]) == [query.partition("=")[0]]


def test_csv_is_safe_in_a_spreadsheet(as_user, admin: User) -> None:
    for sign in "=+-@":
        audit.record("model.restart", "model", 1, f"{sign}cmd()")
    answer = as_user(admin).get(f"{URL}?format=csv&type=model&limit=1")
    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode())))
    assert [row["name"] for row in rows] == ["'@cmd()", "'-cmd()", "'+cmd()", "'=cmd()"]


def test_csv_names_the_unit_of_amounts(as_user, admin: User, user: User) -> None:
    quota.top_up(user.wallet, 5)
    answer = as_user(admin).get(f"{URL}?format=csv&action=balance.topup")
    [row] = csv.DictReader(io.StringIO(answer.getvalue().decode()))
    assert json.loads(row["changes"])["amount_micro_credits"] == [None, 5]


def test_queries_do_not_grow_with_the_rows(as_user, admin: User, django_assert_num_queries) -> None:
    key = ApiKey.objects.create(user=admin, name="build", hash="h", prefix="sk-abc", last4="wxyz")
    with audit.acting(lambda: audit.Actor(admin.pk, "anna", key.pk)):
        for number in range(30):
            audit.record("model.restart", "model", number, "m")
    client = as_user(admin)
    with django_assert_num_queries(2):
        assert results(client)[0]["key"] == "build (sk-abc…wxyz)"
