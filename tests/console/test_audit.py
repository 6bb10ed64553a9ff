"""The audit log in the console: what it shows, its filters, the history of one object, the file."""

from __future__ import annotations

import csv
import io

import pytest
from django.test import Client
from django.utils import timezone, translation

from accounts import audit_log, audit_words, credits, keys, quota, services
from accounts.models import AuditEntry, User
from accounts.models.audit import Area
from cluster import services as machines
from llmplatform.lib import audit
from models_app import services as models
from tests.console.conftest import make_model

AUDIT = "/admin/accounts/auditentry/"


@pytest.fixture(autouse=True)
def _no_failures_yet() -> None:
    audit_log.forget_failures()


def by(person: User, address: str = "10.0.0.4"):
    return audit.acting(lambda: audit.Actor(person.pk, person.username, address=address))


def shown(client: Client, query: str = "") -> list[str]:
    answer = client.get(AUDIT + query)
    assert answer.status_code == 200, answer["Location"]
    return [entry.action for entry in answer.context["cl"].result_list]


def test_a_change_reads_as_a_sentence(as_administrator: Client, administrator: User, user: User):
    with by(administrator):
        quota.top_up(user.wallet, 12_500_000, "thanks")
    page = as_administrator.get(AUDIT).content.decode()
    for text in ("ada", "10.0.0.4", "balance topped up", "ben", "12.50", "thanks"):
        assert text in page
    assert f'href="/admin/accounts/user/{user.pk}/change/"' in page


def test_values_are_for_people(as_administrator: Client, administrator: User):
    make_model("tiny")
    with by(administrator):
        models.update_model(
            "tiny", {"active": False, "policy": "on_demand", "context_length": 8192, "extra": {"a": [1]}}
        )
    entry = AuditEntry.objects.order_by("-id")[0]
    assert [str(change) for change in audit_words.changes(entry.target_type, entry.changes)] == [
        "should run: yes → no",
        "context length: 8,192",
        "policy: always running → started when asked for",
        "extra.a: 1",
    ]
    with translation.override("zh-hans"):
        assert "是 → 否" in next(str(change) for change in audit_words.changes(entry.target_type, entry.changes))


def test_what_somebody_else_wrote_is_no_markup(as_administrator: Client, user: User):
    evil = "<script>alert(1)</script>"
    audit.record("model.update", "model", "1", evil, {"description": evil}, {"description": evil + "2"})
    audit.record("user.login_failed", "user", "", "<b>x", after={evil: 1})
    for path in (AUDIT, f"{AUDIT}{AuditEntry.objects.latest('id').pk}/change/"):
        assert "<script>alert" not in as_administrator.get(path).content.decode()


def test_filters(as_administrator: Client, administrator: User, operator: User, user: User):
    make_model("tiny")
    with by(operator):
        models.request_restart("tiny")
        machines.join("worker-1", "10.0.0.7", 8081)
    with by(administrator):
        quota.adjust(user.wallet, -5)
        services.update_profile(user, {"email": "other@example.com"})
    audit_log.login_failed("ben", "10.0.0.66", "credentials")
    assert shown(as_administrator) == [
        "user.login_failed", "user.update", "balance.adjust", "node.join", "model.restart", "user.login",
    ]  # fmt: skip
    assert shown(as_administrator, "?area=money") == ["balance.adjust"]
    assert shown(as_administrator, "?area=service&type=node") == ["node.join"]
    assert shown(as_administrator, "?action=user.login_failed") == ["user.login_failed"]
    assert shown(as_administrator, "?who=OLGA") == ["node.join", "model.restart"]
    assert shown(as_administrator, "?who=nobody") == []
    assert shown(as_administrator, "?who=command+line") == ["user.login_failed"]
    assert shown(as_administrator, "?who=command:nobody") == []
    assert shown(as_administrator, "?q=tiny") == ["model.restart"]
    assert shown(as_administrator, "?q=10.0.0.4") == ["user.update", "balance.adjust", "node.join", "model.restart"]
    assert shown(as_administrator, "?q=be") == ["user.login_failed", "user.update", "balance.adjust"]
    assert shown(as_administrator, f"?object=user:{user.pk}") == ["user.login_failed", "user.update", "balance.adjust"]
    assert len(shown(as_administrator, "?since=1")) == 6
    assert shown(as_administrator, "?to_day=2020-01-01") == []
    assert len(shown(as_administrator, "?from_day=2020-01-01&to_day=2100-01-01")) == 6
    assert len(shown(as_administrator, "?since=x&area=x&from_day=x&object=")) == 6, "what is no value filters nothing"


def test_filters_are_kept_together(as_administrator: Client, user: User):
    quota.top_up(user.wallet, 5)
    page = as_administrator.get(f"{AUDIT}?area=money&who=ada&object=user:{user.pk}").content.decode()
    assert 'value="ada"' in page
    assert f'name="object" value="user:{user.pk}"' in page
    assert '<option value="money" selected>' in page
    assert "/admin/accounts/auditentry/csv/?area=money&amp;who=ada" in page


def test_balances_are_told_in_credits(as_administrator: Client, user: User):
    credits.set_allowance(user.wallet, 5_000_000, "week")
    entry = AuditEntry.objects.latest("id")
    with translation.override("zh-hans"):
        assert [str(change) for change in audit_words.changes(entry.target_type, entry.changes)] == [
            "定期额度: 5.00",
            "定期额度重新开始: 每月 → 每周",
        ]


@pytest.mark.parametrize("table", ["accounts/user", "accounts/wallet"])
def test_the_history_of_a_person_is_their_part_of_the_log(as_administrator: Client, user: User, table: str):
    quota.top_up(user.wallet, 5)
    number = user.pk if table.endswith("user") else user.wallet.pk
    assert "History" in as_administrator.get(f"/admin/{table}/{number}/change/").content.decode()
    answer = as_administrator.get(f"/admin/{table}/{number}/history/", follow=True)
    assert answer.redirect_chain == [(f"{AUDIT}?object=user%3A{user.pk}", 302)]
    assert [entry.action for entry in answer.context["cl"].result_list] == ["balance.topup"]
    assert "Only changes of: user ben." in answer.content.decode()


def test_operators_have_no_history(as_operator: Client, as_administrator: Client, machine):
    tiny = make_model("tiny")
    assert "History" not in as_operator.get(f"/admin/models_app/modelconfig/{tiny.pk}/change/").content.decode()
    for path in (f"models_app/modelconfig/{tiny.pk}", f"cluster/node/{machine.pk}"):
        assert "/history/" in as_administrator.get(f"/admin/{path}/change/").content.decode()


def test_the_file_holds_what_the_filters_leave(as_administrator: Client, user: User):
    for number in range(60):  # more than a page
        audit.record("model.restart", "model", number, f"=m{number}")
    quota.top_up(user.wallet, 5)
    answer = as_administrator.get(f"{AUDIT}csv/?type=model")
    assert answer["Content-Disposition"] == 'attachment; filename="audit.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.getvalue().decode("utf-8-sig"))))
    assert [row["name"] for row in rows] == [f"'=m{number}" for number in reversed(range(60))]
    assert as_administrator.get(f"{AUDIT}csv/?nonsense=1").status_code == 302


def test_what_a_new_object_has_of_nothing_comes_last():
    stored = {"note": [None, ""], "limit": [None, 0], "uses": [3, 0], "secret": "changed", "name": [None, "a"]}
    shown = [change.field for change in audit_words.changes("", stored)]
    assert shown[:3] == ["uses", "secret", "name"]
    assert len(shown) == 5


def test_times_are_of_the_readers_zone():
    with timezone.override("Asia/Shanghai"):
        [change] = audit_words.changes("key", {"expires_at": [None, "2026-02-10T20:00:00+00:00"]})
    assert change.after == "2026-02-11 04:00"


def test_the_file_is_for_administrators(as_operator: Client):
    assert as_operator.get(f"{AUDIT}csv/").status_code == 403


@pytest.mark.parametrize("path", ["add/", "{}/delete/"])
def test_nothing_is_added_or_deleted_by_hand(as_administrator: Client, path: str):
    audit.record("model.restart", "model", 1, "m")
    entry = AuditEntry.objects.latest("id")
    assert as_administrator.post(AUDIT + path.format(entry.pk), {"post": "yes"}).status_code == 403
    as_administrator.post(f"{AUDIT}{entry.pk}/change/", {"action": "x", "target_name": "x"})
    as_administrator.post(AUDIT, {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"})
    assert AuditEntry.objects.get(pk=entry.pk).target_name == "m"


def test_the_log_is_never_counted(as_administrator: Client, administrator: User, django_assert_max_num_queries):
    key, _secret = keys.create_key(administrator, keys.NewKey(name="build"))
    with audit.acting(lambda: audit.Actor(administrator.pk, "ada", key.pk)):
        for number in range(60):
            audit.record("model.restart", "model", number, "m")
    with django_assert_max_num_queries(4) as queries:
        page = as_administrator.get(AUDIT).content.decode()
    assert not [query for query in queries.captured_queries if "COUNT(" in query["sql"]]
    assert page.count(f'with key <a class="c-link" href="?key={key.pk}">build') == 50


def test_what_was_done_with_a_key(as_administrator: Client, administrator: User):
    key, _secret = keys.create_key(administrator, keys.NewKey(name="build"))
    with audit.acting(lambda: audit.Actor(administrator.pk, "ada", key.pk)):
        audit.record("model.restart", "model", 1, "tiny")
    answer = as_administrator.get(f"{AUDIT}?key={key.pk}")
    assert [entry.action for entry in answer.context["cl"].result_list] == ["model.restart"]
    assert "Only what was done with key build" in answer.content.decode()
    assert shown(as_administrator, f"?key={key.pk + 1}") == []
    assert len(shown(as_administrator, "?key=x")) == AuditEntry.objects.count()


def test_every_action_and_kind_of_object_has_words():
    assert {action.partition(".")[0] for action in audit_words.ACTIONS} - {"balance"} == set(audit_words.TYPES)
    assert {audit_log.area_of(action) for action in audit_words.ACTIONS} == set(Area)
    assert set(audit_words.ACTIONS) >= audit_log.LOGINS
