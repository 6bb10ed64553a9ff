"""An answer that ends where the balance does says so; any other end does not."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from channels.db import database_sync_to_async
from django.test import Client

from chat import generation, live
from chat.models import Message
from chat.tests.conftest import sse, words

pytestmark = pytest.mark.django_db(transaction=True)

NOTE = '<p class="cut">'


@pytest.fixture
def affording(engine, monkeypatch):
    """What the gateway says that the balance pays for."""

    def afford(tokens: int | None) -> None:
        async def infer(request):
            return dataclasses.replace(await engine(request), affordable=tokens)

        monkeypatch.setattr(generation, "infer", infer)

    return afford


def ending(finish_reason: str, made: int | None) -> list[bytes | None]:
    usage = [] if made is None else [sse(choices=[], usage={"prompt_tokens": 5, "completion_tokens": made})]
    return [*words("half an"), sse(choices=[{"delta": {}, "finish_reason": finish_reason}]), *usage, None]


async def answered(tab, engine, finish_reason: str, made: int | None) -> dict:
    await tab.say(type="send", model="m", content="What is a cat?", client_id="c1")
    await tab.hear_until("accepted")
    (await engine.next()).say(*ending(finish_reason, made))
    return await tab.hear_until("done")


@pytest.mark.parametrize("made", [28, None])
async def test_an_answer_cut_to_the_balance_says_so_then_and_later(alice, engine, open_tab, affording, made):
    affording(28)
    tab = await open_tab(alice)
    done = await answered(tab, engine, "length", made)
    assert (done["state"], done["finish_reason"], done["cut_to"]) == ("done", "length", 28)
    live.live.forget(uuid.UUID(done["message"]))  # from now on only the database knows
    late = await open_tab(alice)
    await late.say(type="resume", message=done["message"], after=0)
    assert (await late.hear_until("done"))["cut_to"] == 28
    assert NOTE in await database_sync_to_async(page_of)(alice, done["conversation"])


@pytest.mark.parametrize(
    ("affordable", "finish_reason", "made"),
    [
        (28, "stop", 28),
        (28, "length", 20),  # the context was full before
        (None, "length", 60),  # max_tokens, or the longest answer of the model
    ],
)
async def test_no_other_end_is_blamed_on_the_balance(
    alice, engine, open_tab, affording, affordable, finish_reason, made
):
    affording(affordable)
    done = await answered(await open_tab(alice), engine, finish_reason, made)
    assert "cut_to" not in done
    assert "cut_to" not in (await Message.objects.aget(id=done["message"])).stats
    assert NOTE not in await database_sync_to_async(page_of)(alice, done["conversation"])


async def test_an_answer_that_was_stopped_is_not_blamed_on_the_balance(alice, engine, open_tab, affording):
    affording(28)
    tab = await open_tab(alice)
    await tab.say(type="send", model="m", content="x", client_id="c1")
    accepted = await tab.hear_until("accepted")
    (await engine.next()).say(*words("half an"), sse(choices=[{"delta": {}, "finish_reason": "length"}]))
    await tab.hear_until("delta")
    await tab.say(type="stop", message=accepted["message"])
    done = await tab.hear_until("done")
    assert done["state"] == "stopped"
    assert "cut_to" not in done


def page_of(user, conversation: str) -> str:
    client = Client()
    client.force_login(user)
    return client.get(f"/chat/{conversation}/messages").content.decode()
