"""An open socket has the rights of now, not those of the moment at which it was opened."""

from __future__ import annotations

import pytest
from channels.db import database_sync_to_async

from accounts import callers, keys
from accounts.models import ApiKey, Group, User
from chat import consumers

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch):
    """As if the three seconds had passed each time."""
    for memory in (callers._users, callers._keys):
        monkeypatch.setattr(memory, "_seconds", 0.0)


async def ask(tab, engine):
    await tab.say(type="send", model="m", content="What is a cat?", client_id="c1")
    await tab.hear_until("accepted")
    script = await engine.next()
    script.finish("A small animal.")
    await tab.hear_until("done")
    return script.request.caller


@pytest.fixture
def key(alice) -> tuple[ApiKey, str]:
    return keys.create_key(alice, keys.NewKey(name="chat"))


@pytest.fixture
async def tab_with_key(open_tab, key):
    tab = await open_tab(origin=None)
    await tab.say(type="auth", token=key[1])
    return tab


def into_a_group(user: User) -> None:
    group = Group.objects.create(name="guests", allowed_models=["small"], member_requests_per_minute=3)
    User.objects.filter(pk=user.pk).update(group=group)


async def test_after_a_change_of_group_the_next_message_has_its_models_and_limits(alice, engine, open_tab):
    tab = await open_tab(alice)
    before = await ask(tab, engine)
    assert before.sees("m")
    assert before.limits == ()
    await database_sync_to_async(into_a_group)(alice)
    after = await ask(tab, engine)
    assert after.group_models == {"small"}
    assert [limit.requests for limit in after.limits] == [3]


async def test_a_regenerated_answer_has_the_rights_of_now(alice, engine, open_tab):
    tab = await open_tab(alice)
    await ask(tab, engine)
    answer = tab.events[-1]["message"]
    await database_sync_to_async(into_a_group)(alice)
    await tab.say(type="regenerate", message=answer, client_id="r")
    await tab.hear_until("accepted")
    assert (await engine.next()).request.caller.group_models == {"small"}


async def test_a_narrowed_key_narrows_the_next_message(engine, tab_with_key, key):
    before = await ask(tab_with_key, engine)
    assert before.may_use("m")
    await ApiKey.objects.filter(pk=key[0].pk).aupdate(allowed_models=["small"])
    after = await ask(tab_with_key, engine)
    assert after.key_models == {"small"}


@pytest.mark.parametrize("change", [{"scopes": ["models:read"]}, {"allowed_addresses": ["203.0.113.0/24"]}])
async def test_a_key_that_may_no_longer_be_used_here_ends_the_socket(engine, tab_with_key, key, change):
    await ask(tab_with_key, engine)
    await ApiKey.objects.filter(pk=key[0].pk).aupdate(**change)
    await tab_with_key.say(type="send", model="m", content="And a dog?", client_id="c2")
    assert (await tab_with_key.hear_until("error"))["code"] == "invalid_api_key"
    assert await tab_with_key.closed_with() == consumers.NOT_AUTHENTICATED
    assert engine.asked.empty()
