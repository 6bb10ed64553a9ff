"""API keys as services make them and callers show them."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import callers, groups, keys, services
from accounts.callers import NotAllowed, NotAuthenticated, caller_from_bearer
from accounts.keys import NewKey
from accounts.limits import Limit
from accounts.models import ApiKey, Group, Scope

pytestmark = pytest.mark.django_db(transaction=True)


def made(user, **wanted) -> tuple[ApiKey, str]:
    return keys.create_key(user, NewKey(**{"name": "test", **wanted}))


make = sync_to_async(made)


def test_a_key_is_told_once_and_kept_as_a_hash(user):
    key, secret = made(user)
    assert callers.KEY_FORM.fullmatch(secret)
    assert (key.prefix, key.last4) == (secret[:9], secret[-4:])
    kept = " ".join(str(value) for value in ApiKey.objects.values_list().get())
    assert secret not in kept
    assert secret[9:-4] not in kept
    assert key.scopes == [Scope.INFERENCE]


async def test_a_key_is_its_owner_within_its_bounds(user):
    group = await Group.objects.acreate(
        name="Physics", allowed_models=["a", "b"], requests_per_minute=50, member_concurrent_requests=2
    )
    user.group, user.tokens_per_minute = group, 900
    await user.asave()
    key, secret = await make(user, scopes=["inference", "usage:read"], allowed_models=["b", "c"], requests_per_minute=5)
    caller = await caller_from_bearer(secret)
    assert (caller.user_id, caller.wallet_id, caller.key_id) == (user.pk, user.wallet.pk, key.pk)
    assert [name for name in "abcd" if caller.sees(name)] == ["a", "b"]
    assert [name for name in "abcd" if caller.may_use(name)] == ["b", "c"]
    assert [caller.has_scope(scope) for scope in Scope.values] == [True, False, False, True, False]
    assert caller.limits == (
        Limit(f"key:{key.pk}", 5),
        Limit(f"user:{user.pk}", 0, 900, 2),
        Limit(f"group:{group.pk}", 50),
    )


async def test_one_fixed_query_however_the_key_looks(user):
    _key, secret = await make(user)
    await ApiKey.objects.aupdate(last_used_at=timezone.now())

    def queries(token: str) -> list[str]:
        with CaptureQueriesContext(connection) as context, contextlib.suppress(NotAuthenticated):
            callers.key_from_token(token, "")
        return [query["sql"].split("WHERE")[0] for query in context]

    right = await sync_to_async(queries)(secret)
    wrong = await sync_to_async(queries)("sk-" + "x" * 43)
    odd = [
        await sync_to_async(queries)(f"sk-{text}") for text in ("", "'", "\x00" * 43, "x" * 42, "x" * 4000, "é" * 43)
    ]
    assert len(right) == 1
    assert right == wrong
    assert odd == [[]] * 6


@pytest.mark.parametrize("end", ["revoked", "expired", "owner blocked"])
async def test_a_key_that_ended_is_refused_within_seconds_of_a_change_made_elsewhere(user, end, monkeypatch):
    key, secret = await make(user, expires_at=timezone.now() + timedelta(hours=1))
    await caller_from_bearer(secret)
    rows = ApiKey.objects.filter(pk=key.pk)
    if end == "revoked":
        await rows.aupdate(revoked_at=timezone.now())
    elif end == "expired":
        await rows.aupdate(expires_at=timezone.now())
    else:
        user.is_active = False
        await user.asave()
    real = callers.time.monotonic
    monkeypatch.setattr(callers.time, "monotonic", lambda: real() + callers.STATE_SECONDS + 0.1)
    with pytest.raises(NotAuthenticated):
        await caller_from_bearer(secret)


async def test_in_this_process_it_is_refused_at_once(user):
    key, secret = await make(user)
    await caller_from_bearer(secret)
    await sync_to_async(keys.revoke_key)(key)
    with pytest.raises(NotAuthenticated):
        await caller_from_bearer(secret)


async def test_the_time_it_expires_is_looked_at_when_it_is_used(user, monkeypatch):
    _key, secret = await make(user, expires_at=timezone.now() + timedelta(seconds=60))
    await caller_from_bearer(secret)
    real = callers.time.time
    monkeypatch.setattr(callers.time, "time", lambda: real() + 61)
    with pytest.raises(NotAuthenticated):
        await caller_from_bearer(secret)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("", False),
        ("unknown", False),
    ],
)
async def test_from_where_it_may_be_used(user, address, may):
    _key, secret = await make(user, allowed_addresses=["10.0.0.0/8", "2001:db8::/32"])
    if may:
        await caller_from_bearer(secret, address)
    else:
        with pytest.raises(NotAllowed):
            await caller_from_bearer(secret, address)


async def test_when_it_was_last_used_is_written_once_a_minute(user):
    key, secret = await make(user)
    await caller_from_bearer(secret)
    await key.arefresh_from_db()
    first = key.last_used_at
    callers.forget_everything()
    await caller_from_bearer(secret)
    await key.arefresh_from_db()
    assert key.last_used_at == first
    await ApiKey.objects.aupdate(last_used_at=first - timedelta(minutes=2))
    callers.forget_everything()
    await caller_from_bearer(secret)
    await key.arefresh_from_db()
    assert key.last_used_at >= first


# -- making, changing, rotating ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("name", "a\nb"),
        ("scopes", []),
        ("scopes", ["inference", "root"]),
        ("allowed_models", [""]),
        ("allowed_models", [str(n) for n in range(201)]),
        ("allowed_addresses", ["10.0.0.0/33"]),
        ("allowed_addresses", ["localhost"]),
        ("expires_at", timezone.now() - timedelta(days=1)),
        ("requests_per_minute", -1),
        ("tokens_per_minute", 2**31),
        ("concurrent_requests", True),
        ("budget", -5),
        ("budget", 10**16),
        ("budget_period", "year"),
    ],
)
def test_what_no_key_can_have(user, field, value):
    with pytest.raises(ValidationError) as caught:
        made(user, **{field: value})
    assert list(caught.value.message_dict) == [field]
    assert not ApiKey.objects.exists()


def test_everything_wrong_is_told_at_once(user):
    with pytest.raises(ValidationError) as caught:
        made(user, name="", scopes=["x"], budget=-1)
    assert set(caught.value.message_dict) == {"name", "scopes", "budget"}


def test_networks_are_kept_in_their_usual_form(user):
    key, _secret = made(user, allowed_addresses=["10.1.2.3/8", " 2001:DB8:0::1/32 ", "10.0.0.0/8"])
    assert key.allowed_addresses == ["10.0.0.0/8", "2001:db8::/32"]


def test_a_hundred_live_keys_are_enough(user, monkeypatch):
    monkeypatch.setattr(keys, "MOST_KEYS", 2)
    first, _secret = made(user)
    made(user)
    with pytest.raises(ValidationError):
        made(user)
    keys.revoke_key(first)
    made(user)


def test_a_rotation_counts_as_a_key_while_the_old_one_goes_on(user, monkeypatch):
    monkeypatch.setattr(keys, "MOST_KEYS", 2)
    key, _secret = made(user)
    second, _secret = keys.rotate_key(key, timedelta(hours=1))
    with pytest.raises(ValidationError) as caught:
        keys.rotate_key(second, timedelta(hours=1))
    assert list(caught.value.message_dict) == ["key"]
    keys.rotate_key(second, timedelta(0))
    assert keys.live_keys(user).count() == 2


async def test_changes_hold_at_once_in_this_process(user):
    key, secret = await make(user)
    await caller_from_bearer(secret)
    await sync_to_async(keys.update_key)(key, {"allowed_models": ["a"], "name": "new"})
    assert (await caller_from_bearer(secret)).key_models == {"a"}


async def test_rotating_gives_the_same_rights_and_an_end_to_the_old_secret(user, monkeypatch):
    key, secret = await make(user, scopes=["usage:read"], budget=500, budget_period="day", allowed_models=["a"])
    new, new_secret = await sync_to_async(keys.rotate_key)(key, timedelta(hours=1))
    assert secret != new_secret
    assert (new.scopes, new.budget, new.holder, new.allowed_models) == (["usage:read"], 500, key, ["a"])
    assert (await caller_from_bearer(secret)).key_id == key.pk
    assert (await caller_from_bearer(new_secret)).key_id == new.pk
    real = callers.time.time
    monkeypatch.setattr(callers.time, "time", lambda: real() + 3601)
    await caller_from_bearer(new_secret)
    with pytest.raises(NotAuthenticated):
        await caller_from_bearer(secret)


def test_rotating_never_gives_the_old_secret_more_time(user):
    soon = timezone.now() + timedelta(minutes=5)
    key, _secret = made(user, expires_at=soon)
    keys.rotate_key(key, timedelta(days=1))
    key.refresh_from_db()
    assert key.expires_at == soon


def test_what_has_ended_cannot_be_rotated(user):
    key, _secret = made(user)
    keys.revoke_key(key)
    with pytest.raises(ValidationError):
        keys.rotate_key(key, timedelta(0))
    assert ApiKey.objects.count() == 1


WIDE = {"scopes": ["inference"], "allowed_models": ["a"], "allowed_addresses": ["10.0.0.0/8"], "requests_per_minute": 5}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scopes", ["inference", "admin"]),
        ("allowed_models", []),
        ("allowed_models", ["a", "b"]),
        ("allowed_addresses", []),
        ("requests_per_minute", 0),
        ("requests_per_minute", 6),
        ("budget", None),
        ("budget", 101),
        ("expires_at", None),
        ("expires_at", timezone.now() + timedelta(days=9)),
    ],
)
def test_a_key_gives_away_no_more_than_it_has(user, field, value):
    end = timezone.now() + timedelta(days=1)
    parent, _secret = made(user, **WIDE, budget=100, expires_at=end)
    keys.check_no_wider(parent, {**WIDE, "budget": 100, "expires_at": end})
    with pytest.raises(ValidationError) as caught:
        keys.check_no_wider(parent, {**WIDE, "budget": 100, "expires_at": end, field: value})
    assert list(caught.value.message_dict) == [field]


def test_a_batch_key_makes_no_interactive_one(user):
    parent, _secret = made(user, priority="batch")
    keys.check_no_wider(parent, {"priority": "batch"})
    keys.check_no_wider(parent, {"name": "only this changes"})
    with pytest.raises(ValidationError) as caught:
        keys.check_no_wider(parent, {"priority": "interactive"})
    assert list(caught.value.message_dict) == ["priority"]
    keys.check_no_wider(made(user)[0], {"priority": "batch"})


async def test_the_key_decides_who_is_asked_for_and_how_urgent_it_is(user):
    group = await Group.objects.acreate(name="Physics")
    service = await sync_to_async(groups.service_account)(group)
    token = await sync_to_async(services.console_token)(user)
    asking = [token, (await make(user))[1], (await make(user, priority="batch"))[1], (await make(service))[1]]
    found = [await caller_from_bearer(secret) for secret in asking]
    assert [caller.priority for caller in found] == ["interactive", "interactive", "batch", "interactive"]
    assert [caller.tenant for caller in found] == [user.pk, user.pk, user.pk, service.pk]


async def test_a_changed_priority_is_kept_by_rotation_and_seen_at_once(user):
    key, secret = await make(user)
    assert (await caller_from_bearer(secret)).priority == "interactive"
    await sync_to_async(keys.update_key)(key, {"priority": "batch"})
    assert (await caller_from_bearer(secret)).priority == "batch"
    new, _secret = await sync_to_async(keys.rotate_key)(key, timedelta(0))
    assert new.priority == "batch"


async def test_other_credentials_of_the_same_person_are_not_bounded(user):
    await make(user, allowed_models=["a"])
    token = await sync_to_async(services.console_token)(user)
    caller = await caller_from_bearer(token)
    assert (caller.key_id, caller.key_models, caller.scopes) == (None, None, None)
