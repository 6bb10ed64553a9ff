"""The audit log: who did what from where, failed logins, nothing secret, only ever added to; and GET /api/v1/audit."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.core.asgi import get_asgi_application
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts import attempts, audit_log, credits, groups, invites, keys, people, prices, quota, services
from accounts.models import AuditEntry, Group, User
from accounts.tests.conftest import PASSWORD
from llmplatform.lib import audit

pytestmark = pytest.mark.django_db


def last() -> AuditEntry:
    return AuditEntry.objects.order_by("-id")[0]


def actions() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("action", flat=True))


def attempts_of(changes: dict[str, Any]) -> int:
    return changes["attempts"][1] if "attempts" in changes else 1


def log_in(client: APIClient, username: str, password: str = "wrong", **extra: Any):
    return client.post("/api/v1/auth/login", {"username": username, "password": password}, format="json", **extra)


# -- who and what ----------------------------------------------------------------------------------------------------------
def test_a_change_by_a_token_is_told_with_person_address_before_and_after(as_user, user: User) -> None:
    as_user(user).patch("/api/v1/auth/me", {"email": "new@example.com"}, format="json", REMOTE_ADDR="2001:db8::7")
    entry = last()
    assert (entry.actor, entry.actor_name, entry.key, entry.address) == (user, "bob", None, "2001:db8::7")
    assert (entry.action, entry.area) == ("user.update", "people")
    assert (entry.target_type, entry.target_id, entry.target_name) == ("user", str(user.pk), "bob")
    assert entry.changes == {"email": ["bob@example.com", "new@example.com"]}


def test_a_change_by_a_session_is_told_with_its_person(user: User) -> None:
    client = Client()
    client.force_login(user)
    client.post("/account", {"email": "bob@example.com", "language": "en"})
    assert (last().actor, last().changes) == (user, {"language": ["", "en"]})


def test_saving_what_is_there_already_is_no_change(as_user, user: User) -> None:
    before = actions()
    as_user(user).patch("/api/v1/auth/me", {"email": "bob@example.com"}, format="json")
    assert actions() == before


def test_a_registration_is_told_as_the_new_persons_doing(client: APIClient) -> None:
    client.post("/api/v1/auth/register", {"username": "cleo", "password": PASSWORD}, format="json")
    entry = last()
    assert (entry.action, entry.actor_name, entry.target_name, entry.address) == (
        "user.register", "cleo", "cleo", "127.0.0.1",
    )  # fmt: skip
    assert entry.changes["password"] == "changed"
    assert entry.changes["role"] == [None, "user"]
    assert PASSWORD not in json.dumps(entry.changes)
    assert User.objects.get(username="cleo").password not in json.dumps(entry.changes)


def test_a_command_is_told_as_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_PROCESS", raising=False)
    call_command("createadmin", "root")
    call_command("createadmin", "root", "--reset")
    assert actions() == ["user.create", "user.password"]
    assert last().actor is None
    assert last().actor_name.startswith("command:")
    assert last().changes == {"password": "changed"}


def test_a_password_is_told_as_changed(as_user, user: User) -> None:
    as_user(user).post(
        "/api/v1/auth/password", {"old_password": PASSWORD, "new_password": "an0ther-Fine1"}, format="json"
    )
    user.refresh_from_db()
    entry = last()
    assert (entry.action, entry.area, entry.changes) == ("user.password", "logins", {"password": "changed"})


def test_a_link_for_a_new_password_is_told_without_what_it_opens(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_PROCESS", raising=False)
    call_command("resetpassword", "bob", "--link", stdout=(said := io.StringIO()))
    assert (last().action, last().target_name, last().changes) == ("user.reset_link", "bob", {})
    assert last().actor_name.startswith("command:")
    token = parse_qs(said.getvalue().strip().partition("#")[2])
    Client().post(
        "/password/reset", {name: values[0] for name, values in token.items()} | {"new_password": "an0ther-Fine1"}
    )
    entry = last()
    assert (entry.action, entry.actor, entry.address) == ("user.password_reset", user, "127.0.0.1")
    assert token["token"][0] not in str(list(AuditEntry.objects.values_list()))


def test_a_wrong_present_password_is_told(as_user, user: User) -> None:
    as_user(user).post(
        "/api/v1/auth/password", {"old_password": "wrong", "new_password": "an0ther-Fine1"}, format="json"
    )
    assert (last().action, last().actor, last().target_name) == ("user.password_refused", user, "bob")


def test_the_key_that_was_used_is_told(client: APIClient, user: User) -> None:
    key, secret = keys.create_key(user, keys.NewKey(name="build", scopes=["admin"]))
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    assert client.patch("/api/v1/auth/me", {"first_name": "Bob"}, format="json").status_code == 200
    assert (last().actor, last().key, last().changes) == (user, key, {"first_name": ["", "Bob"]})


def test_keys_are_told_without_what_they_open(user: User) -> None:
    key, secret = keys.create_key(user, keys.NewKey(name="build", budget=500))
    entry = last()
    assert (entry.action, entry.area, entry.target_name) == ("key.create", "keys", str(key))
    assert entry.changes["user"] == [None, "bob"]
    assert entry.changes["budget"] == [None, 500]
    keys.update_key(key, {"budget": 600, "name": "build"})
    assert (last().action, last().changes) == ("key.update", {"budget": [500, 600]})
    new, second = keys.rotate_key(key, timedelta(hours=1))
    assert actions()[-2:] == ["key.create", "key.rotate"]
    assert last().changes["replaced by"] == [None, str(new)]
    keys.revoke_key(key)
    keys.revoke_key(key)
    assert actions()[-2:] == ["key.rotate", "key.revoke"]
    assert list(last().changes) == ["revoked_at"]
    assert last().changes["revoked_at"][0] is None
    stored = str(list(AuditEntry.objects.values_list()))
    for secret_text in (secret, second, key.hash, new.hash):
        assert secret_text not in stored


# -- together with the change ------------------------------------------------------------------------------------------------
def test_what_was_rolled_back_is_not_told(user: User) -> None:
    before = actions()
    with suppress(RuntimeError), transaction.atomic():
        quota.top_up(user.wallet, 5)
        raise RuntimeError
    with pytest.raises(ValidationError):
        services.create_user("bob", PASSWORD)
    assert actions() == before


def test_without_an_entry_there_is_no_change(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(event: audit.Event) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(audit, "_sink", full)
    old = user.password
    for change in (
        lambda: services.set_password(user, "an0ther-Fine1"),
        lambda: services.update_profile(user, {"first_name": "Bob"}),
        lambda: quota.top_up(user.wallet, 5),
        lambda: quota.set_unlimited(user.wallet, True),
        lambda: credits.set_allowance(user.wallet, 7),
        lambda: prices.set_policy("m", {"prompt_price": 3}),
        lambda: credits.make_codes("x", 1, 5),
        lambda: services.create_user("cleo", PASSWORD),
    ):
        with pytest.raises(DatabaseError):
            change()
    stored = User.objects.get(pk=user.pk)
    assert (stored.password, stored.first_name) == (old, "")
    assert (stored.wallet.available, stored.wallet.unlimited, stored.wallet.allowance) == (1_000_000, False, None)
    assert not prices.policies()
    assert User.objects.count() == 1


# -- money ----------------------------------------------------------------------------------------------------------------
def test_balances(as_user, admin: User, user: User) -> None:
    as_user(admin).post(f"/api/v1/users/{user.pk}/credits", {"amount": 500, "note": "thanks"}, format="json")
    entry = last()
    assert (entry.actor, entry.action, entry.area, entry.target_name) == (admin, "balance.topup", "money", "bob")
    assert entry.changes == {
        "available": [1_000_000, 1_000_500],
        "amount": [None, 500],
        "note": [None, "thanks"],
    }
    quota.adjust(user.wallet, -500)
    assert last().changes["available"] == [1_000_500, 1_000_000]
    quota.set_unlimited(user.wallet, True)
    assert (last().action, last().changes) == ("balance.unlimited", {"unlimited": [False, True]})
    quota.set_unlimited(user.wallet, True)
    credits.set_allowance(user.wallet, 300, "week")
    assert (last().action, last().changes) == (
        "balance.allowance",
        {"allowance": [None, 300], "allowance_period": ["month", "week"]},
    )
    assert actions().count("balance.unlimited") == 1
    assert "balance.grant" not in actions()  # neither the first credit nor an allowance is anybody's change


def test_codes_and_many_top_ups(user: User, admin: User) -> None:
    batch, [code, _unused] = credits.make_codes("spring", 2, 250, by=admin)
    assert (last().action, last().target_name, last().changes["amount"]) == ("code.create", "spring", [None, 250])
    credits.redeem(user, code)
    assert (last().action, last().target_id) == ("balance.redeem", str(user.pk))
    assert code not in json.dumps(list(AuditEntry.objects.values_list("changes", flat=True)))
    credits.revoke_codes(batch)
    credits.revoke_codes(batch)
    assert actions()[-2:] == ["balance.redeem", "code.revoke"]
    assert last().changes["codes_left"] == [1, 0]
    rows = [credits.CreditRow("bob", 5, "a"), credits.CreditRow("anna", 6, "b"), credits.CreditRow("bob", 7, "c")]
    credits.top_up_many(rows, batch="one")
    credits.top_up_many(rows, batch="one")
    told = [entry.changes for entry in AuditEntry.objects.filter(action="balance.topup").order_by("id")]
    assert [changes["amount"][1] for changes in told] == [5, 6, 7]
    assert told[2]["available"] == [1_000_255, 1_000_262]


def test_prices_and_group_allowances(db: None) -> None:
    prices.set_policy("tiny", {"prompt_price": 3})
    prices.set_policy("tiny", {"prompt_price": 4, "requests_per_minute": 10})
    prices.set_policy("tiny", {"prompt_price": 4})
    assert actions() == ["price.create", "price.update"]
    assert last().changes == {"prompt_price": [3, 4], "requests_per_minute": [0, 10]}
    credits.set_group_allowance(Group.objects.create(name="lab"), 9)
    assert (last().action, last().changes) == ("group.update", {"allowance": [0, 9]})


def test_groups_and_who_is_in_them(user: User) -> None:
    lab = groups.create_group({"name": "lab", "allowed_models": ["tiny"]})
    assert (last().action, last().changes["allowed_models"]) == ("group.create", [None, ["tiny"]])
    groups.update_group(lab, {"name": "lab", "allowance": 5})
    assert (last().action, last().changes) == ("group.update", {"allowance": [0, 5]})
    groups.move(user, lab)
    assert (last().action, last().target_name, last().changes) == ("user.update", "bob", {"group": [None, "lab"]})
    groups.move(user, None)
    groups.delete_group(lab)
    assert (last().action, last().target_name, last().changes["allowance"]) == ("group.delete", "lab", [5, None])
    groups.service_account(groups.create_group({"name": "robots"}))
    assert (last().action, last().target_name) == ("user.create", "group:robots")


def test_invites_and_who_comes_by_them(user: User) -> None:
    invite, code = invites.make_invite(uses=2, note="spring", by=user)
    assert (last().action, last().changes["uses_left"]) == ("invite.create", [None, 2])
    services.register_user("cleo", PASSWORD, invite=code)
    assert (last().action, last().actor_name) == ("user.register", "cleo")
    assert last().changes["invite"] == [None, str(invite)]
    invites.revoke_invite(invite)
    invites.revoke_invite(invite)
    assert [entry.changes for entry in AuditEntry.objects.filter(action="invite.revoke")] == [{"uses_left": [1, 0]}]
    assert code not in str(list(AuditEntry.objects.values_list()))


def test_what_an_administrator_decides_about_people(make_user, admin: User) -> None:
    eve = make_user("eve", is_active=False, waiting=True)
    for decide, action, changes in (
        (people.approve_user, "user.approve", {"is_active": [False, True], "waiting": [True, False]}),
        (people.block_user, "user.block", {"is_active": [True, False]}),
        (people.unblock_user, "user.unblock", {"is_active": [False, True]}),
        (lambda user: people.set_role(user, "admin"), "user.role", {"role": ["user", "admin"]}),
        (lambda user: people.set_role(user, "admin"), "user.role", {"role": ["user", "admin"]}),
        (
            lambda user: people.set_limits(user, {"tokens_per_minute": 7}),
            "user.update",
            {"tokens_per_minute": [None, 7]},
        ),
    ):
        decide(eve)
        assert (last().action, last().changes) == (action, changes)
    assert actions().count("user.role") == 1


# -- logins ----------------------------------------------------------------------------------------------------------------
def test_logins_of_those_who_can_change_things_are_told(client: APIClient, user: User, operator: User) -> None:
    log_in(client, "bob", PASSWORD)
    assert "user.login" not in actions()
    log_in(client, "olga", PASSWORD, REMOTE_ADDR="10.0.0.9")
    entry = last()
    assert (entry.action, entry.actor, entry.address) == ("user.login", operator, "10.0.0.9")
    Client().post("/login", {"username": "olga", "password": PASSWORD})
    assert (actions().count("user.login"), last().actor) == (2, operator)


def test_a_failed_login_is_told_by_every_door(client: APIClient, user: User) -> None:
    log_in(client, "bob", REMOTE_ADDR="10.0.0.9")
    entry = last()
    assert (entry.action, entry.actor, entry.actor_name, entry.address) == ("user.login_failed", None, "", "10.0.0.9")
    assert (entry.target_name, entry.target_id) == ("bob", str(user.pk))
    assert entry.changes == {"reason": [None, "credentials"]}
    Client().post("/login", {"username": "bob@example.com", "password": "wrong"}, REMOTE_ADDR="10.0.0.10")
    assert (last().target_name, last().address) == ("bob", "10.0.0.10")
    assert actions().count("user.login_failed") == 2


def test_why_it_failed(client: APIClient, make_user, monkeypatch: pytest.MonkeyPatch) -> None:
    make_user("eve", is_active=False)
    log_in(client, "eve", PASSWORD)
    assert last().changes["reason"] == [None, "inactive"]
    monkeypatch.setattr(attempts, "PER_WINDOW", 1)
    log_in(client, "anybody")
    log_in(client, "somebody")
    assert last().changes["reason"] == [None, "throttled"]


def test_a_password_in_the_wrong_field_is_not_kept(client: APIClient, user: User) -> None:
    log_in(client, "Tr0ub4dor&3-secret")
    assert last().target_name == "Tr0…"
    assert "ub4dor" not in str(AuditEntry.objects.values_list().last())


@pytest.mark.parametrize("name", ["bob", "nobody", "x" * 254, "\u202eadmin", "' OR 1=1", "🙂🙂🙂🙂🙂"])
def test_trying_again_and_again_fills_no_disk(client: APIClient, user: User, name: str, monkeypatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 10_000)
    for _time in range(40):
        assert log_in(client, name).status_code in {401, 429}
    told = AuditEntry.objects.filter(action="user.login_failed").order_by("id")
    assert [attempts_of(entry.changes) for entry in told] == [*range(1, 11), 16, 32]


def test_many_names_fill_no_disk_either_and_the_rest_is_counted(client: APIClient, user: User, monkeypatch) -> None:
    monkeypatch.setattr(attempts, "PER_WINDOW", 10_000)
    monkeypatch.setattr(audit_log, "FAILURES_PER_MINUTE", 5)
    clock = [1000.0]
    monkeypatch.setattr(audit_log.time, "monotonic", lambda: clock[0])
    for number in range(20):
        log_in(client, f"name{number}")
    assert AuditEntry.objects.filter(action="user.login_failed").count() == 5
    clock[0] += 60
    log_in(client, "bob")
    assert last().changes["others"] == [None, 15]


def test_a_name_counts_anew_after_an_hour_and_from_elsewhere(client: APIClient, user: User, monkeypatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(audit_log.time, "monotonic", lambda: clock[0])
    for address in ("10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"):
        log_in(client, "bob", REMOTE_ADDR=address)
    counts = AuditEntry.objects.filter(action="user.login_failed").order_by("id").values_list("changes", flat=True)
    assert [attempts_of(changes) for changes in counts] == [1, 1, 1, 2]  # one customer has a whole /64
    clock[0] += audit_log.FAILURE_WINDOW + 1
    log_in(client, "bob", REMOTE_ADDR="10.0.0.1")
    assert attempts_of(last().changes) == 1


def test_a_failed_login_costs_the_same_for_a_name_that_exists(client: APIClient, user: User) -> None:
    def queries(name: str) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            log_in(client, name)
        return [query["sql"].split()[0] for query in captured]

    for _time in range(5):
        assert queries("bob") == queries("nobody")
    assert AuditEntry.objects.filter(action="user.login_failed").count() == 10


# -- only ever added to ----------------------------------------------------------------------------------------------------
def test_an_entry_is_never_changed_or_deleted(user: User) -> None:
    entry = last()
    entry.action = "nothing.happened"
    rows = AuditEntry.objects.all()
    for attempt in (
        entry.save,
        entry.delete,
        rows.delete,
        rows.filter(pk=entry.pk).delete,
        lambda: rows.update(action="x"),
        lambda: rows.bulk_update([entry], ["action"]),
        lambda: AuditEntry.objects.bulk_create(
            [entry], update_conflicts=True, update_fields=["action"], unique_fields=["id"]
        ),
        lambda: AuditEntry.objects.update_or_create(pk=entry.pk, defaults={"action": "x"}),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert last().action == "user.create"


# -- two at once -------------------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
async def test_two_people_at_once_under_asgi(make_user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both requests are inside their views, in threads of their own, before either writes."""
    people = [await sync_to_async(make_user)(name) for name in ("anna", "bob")]
    together, one = threading.Barrier(2, timeout=20), threading.Lock()
    update = services.update_profile

    def held(user: User, changes: dict[str, Any]) -> User:
        together.wait()
        with one:  # SQLite in memory knows no waiting for a lock
            changed = update(user, changes)
        together.wait()
        return changed

    monkeypatch.setattr(services, "update_profile", held)
    application = get_asgi_application()

    async def rename(person: User, address: str) -> None:
        token = await sync_to_async(services.console_token)(person)
        transport = httpx.ASGITransport(app=application, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            for number in range(5):
                answer = await client.patch(
                    "/api/v1/auth/me",
                    json={"first_name": f"{person.username}{number}"},
                    headers={"Authorization": f"Bearer {token}"},
                )
                assert answer.status_code == 200, answer.text

    await asyncio.gather(*(rename(person, f"10.0.0.{number}") for number, person in enumerate(people)))
    told = [entry async for entry in AuditEntry.objects.filter(action="user.update")]
    assert len(told) == 10
    addresses = {"anna": "10.0.0.0", "bob": "10.0.0.1"}
    for entry in told:
        assert entry.actor_name == entry.target_name
        assert entry.address == addresses[entry.target_name]
        assert entry.changes["first_name"][1].startswith(entry.target_name)
    assert audit.actor().name.startswith(("command:", "service:"))
