"""Who only listens is cut off soon after a change, by one look at all sockets of the process."""

from __future__ import annotations

import pytest
from channels.db import database_sync_to_async
from django.contrib.sessions.models import Session
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework_simplejwt.tokens import AccessToken

from accounts import callers, keys, standing
from accounts.models import ApiKey, User
from accounts.standing import Presence, marks_of
from chat import consumers
from chat.lookout import LOOK_EVERY, Lookout, lookout

pytestmark = pytest.mark.django_db(transaction=True)


def change_password(user: User) -> None:
    """As another process does it: this one goes on remembering."""
    user.set_password("another one 3")
    User.objects.filter(pk=user.pk).update(password=user.password)


def block(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def end_sessions(user: User) -> None:
    Session.objects.all().delete()


def revoke_keys(user: User) -> None:
    ApiKey.objects.filter(user=user).update(revoked_at=timezone.now())


def narrow_keys(user: User) -> None:
    ApiKey.objects.filter(user=user).update(allowed_addresses=["203.0.113.0/24"])


def leave_in_peace(user: User) -> None:
    User.objects.filter(pk=user.pk).update(last_login=timezone.now(), email="new@example.com")


def new_token(user: User) -> str:
    return str(AccessToken.for_user(user))


def new_key(user: User) -> str:
    return keys.create_key(user, keys.NewKey(name="chat"))[1]


async def listening(open_tab, user, credential):
    """A socket that said who it is by ``credential`` (None: its session) and nothing else."""
    tab = await open_tab(user) if credential is None else await open_tab(origin=None)
    if credential is not None:
        await tab.say(type="auth", token=await database_sync_to_async(credential)(user))
        await tab.say(type="nonsense")
        await tab.hear_until("error")  # so the message before it was taken
    return tab


@pytest.mark.parametrize(
    ("credential", "change"),
    [
        (None, change_password),
        (None, block),
        (None, end_sessions),
        (new_token, change_password),
        (new_token, block),
        (new_key, block),
        (new_key, revoke_keys),
        (new_key, narrow_keys),
    ],
)
async def test_who_only_listens_is_cut_off_by_the_next_look(alice, engine, open_tab, credential, change):
    tab = await listening(open_tab, alice, credential)
    await lookout.look()
    await database_sync_to_async(change)(alice)
    await lookout.look()
    assert (await tab.hear_until("error"))["code"] == "invalid_api_key"
    assert await tab.closed_with() == consumers.NOT_AUTHENTICATED


async def test_who_was_let_in_by_what_was_remembered_is_cut_off_by_the_first_look(alice, engine, open_tab):
    tab = await listening(open_tab, alice, new_token)
    await database_sync_to_async(change_password)(alice)
    await lookout.look()
    assert await tab.closed_with() == consumers.NOT_AUTHENTICATED


@pytest.mark.parametrize("credential", [None, new_token, new_key])
async def test_who_may_stay_stays(alice, bob, engine, open_tab, credential):
    hers, his = await listening(open_tab, alice, credential), await listening(open_tab, bob, credential)
    await lookout.look()
    await database_sync_to_async(leave_in_peace)(alice)
    await database_sync_to_async(block)(bob)
    await lookout.look()
    assert await his.closed_with() == consumers.NOT_AUTHENTICATED
    assert await hers.communicator.receive_nothing(0.1)


async def test_looks_go_on_by_themselves(alice, engine, open_tab):
    """Without the socket's own look, which comes once a minute."""
    assert LOOK_EVERY + callers.STATE_SECONDS <= 5
    tab = await listening(open_tab, alice, None)
    await database_sync_to_async(change_password)(alice)
    assert await tab.closed_with() == consumers.NOT_AUTHENTICATED  # waits for 5 seconds


class Listening:
    def __init__(self, presence: Presence | None) -> None:
        self.looks = 0
        self._presence = presence

    def presence(self) -> Presence | None:
        return self._presence

    async def look_again(self) -> None:
        self.looks += 1


async def test_nobody_is_looked_at_while_nothing_changes(alice, bob):
    watch, hers, his, stranger = Lookout(), *map(Listening, (Presence(alice.pk), Presence(bob.pk), None))
    for listener in (hers, his, stranger):
        watch.add(listener)
    for _ in range(3):
        await watch.look()
    assert (hers.looks, his.looks, stranger.looks) == (1, 1, 0)
    await database_sync_to_async(change_password)(alice)
    for _ in range(3):
        await watch.look()
    assert (hers.looks, his.looks) == (2, 1)


async def test_one_that_cannot_be_looked_at_keeps_nobody_else_from_it(alice, bob):
    watch, hers, his = Lookout(), Listening(Presence(alice.pk)), Listening(Presence(bob.pk))

    async def fails() -> None:
        hers.looks += 1
        raise RuntimeError

    hers.look_again = fails
    watch.add(hers)
    watch.add(his)
    for _ in range(2):
        await watch.look()
    assert (hers.looks, his.looks) == (2, 1)


def test_queries_do_not_grow_with_the_listeners(alice, monkeypatch):
    User.objects.bulk_create(User(username=f"u{n}", password="!") for n in range(40))
    present = [Presence(pk, 1, "a session") for pk in User.objects.values_list("pk", flat=True)]

    def queries() -> int:
        with CaptureQueriesContext(connection) as made:
            assert all(mark[0] for mark in marks_of(present).values())
        return len(made)

    assert queries() == 3
    monkeypatch.setattr(standing, "AT_ONCE", 10)
    assert queries() == 5 + 2
