from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from channels.db import database_sync_to_async
from rest_framework_simplejwt.tokens import AccessToken

from accounts import callers
from accounts.models import User
from chat import consumers, generation, live, selectors, services
from chat.models import Conversation, Message
from chat.page_texts import answer_facts
from chat.tests.conftest import ENDING, communicator, sse, words
from gateway import errors

pytestmark = pytest.mark.django_db(transaction=True)


def stored(message_id: str) -> Message:
    return Message.objects.select_related("conversation", "parent").get(id=message_id)


read = database_sync_to_async(stored)


async def eventually(condition, seconds: float = 5):
    """Waits until the synchronous ``condition`` gives something true; gives it back."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (value := await database_sync_to_async(condition)()):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    return value


async def ask(tab, engine, content="What is a cat?", **more):
    await tab.say(type="send", model="m", content=content, client_id="c1", **more)
    return await tab.hear_until("accepted"), await engine.next()


async def test_which_model_answered_is_told_and_kept_when_another_one_did(alice, engine, open_tab):
    engine.answers_as = "m-v2"
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    assert (accepted["model"], (await tab.hear_until("started"))["model"]) == ("m", "m-v2")
    script.finish("Meow.")
    assert (await tab.hear_until("done"))["model"] == "m-v2"
    message = await read(accepted["message"])
    assert (message.model_name, message.stats["model"]) == ("m", "m-v2")
    assert "m-v2" in answer_facts(message.stats, message.model_name, message.state)


# -- a question and its answer -------------------------------------------------------------------------------------------
async def test_a_question_is_answered_and_stored(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine, "What is a cat?\nSay it shortly.", params={"temperature": 0.5})
    assert accepted["client_id"] == "c1"
    assert accepted["title"] == "What is a cat?"
    assert script.request.endpoint == "chat.completions"
    assert script.request.source == "chat"
    assert script.request.stream is True
    assert script.request.caller.user_id == alice.id
    assert script.request.body["temperature"] == 0.5
    assert script.request.body["messages"] == [{"role": "user", "content": "What is a cat?\nSay it shortly."}]
    script.finish("A **small** animal, 很简单 🙂")
    done = await tab.hear_until("done")
    assert tab.text_of(accepted["message"]) == "A **small** animal, 很简单 🙂"
    assert done["state"] == "done"
    assert done["html"] == "<p>A <strong>small</strong> animal, 很简单 🙂</p>\n"
    assert done["usage"] == {"prompt_tokens": 5, "completion_tokens": 7}
    assert done["timings"]["tokens_per_second"] == 33.33
    assert done["timings"]["first_token_ms"] >= 0
    assert {"started", "delta", "render", "done"} <= {event["type"] for event in tab.events}
    about_it = [event for event in tab.events if event["type"] != "accepted"]
    assert {event["conversation"] for event in about_it} == {accepted["conversation"]}
    sequence = [event["seq"] for event in tab.events if event["type"] == "delta"]
    assert sequence == sorted(set(sequence))
    message = await read(accepted["message"])
    assert (message.state, message.text) == ("done", "A **small** animal, 很简单 🙂")
    assert message.stats["usage"]["completion_tokens"] == 7
    assert message.parent_id == uuid.UUID(accepted["question"])


async def test_the_next_question_carries_the_history(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine, "one")
    script.finish("first answer")
    await tab.hear_until("done")
    again, script = await ask(tab, engine, "two", conversation=accepted["conversation"])
    assert again["conversation"] == accepted["conversation"]
    assert script.request.body["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first answer"},
        {"role": "user", "content": "two"},
    ]


async def test_reasoning_is_told_apart(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    script.say(sse(choices=[{"delta": {"reasoning_content": "Let me "}}]))
    script.say(sse(choices=[{"delta": {"reasoning_content": "think."}}]))
    script.finish("Yes.")
    await tab.hear_until("done")
    assert tab.text_of(accepted["message"], "reasoning") == "Let me think."
    assert tab.text_of(accepted["message"]) == "Yes."
    message = await read(accepted["message"])
    assert (message.reasoning, message.text) == ("Let me think.", "Yes.")


async def test_waiting_and_reading_are_told(alice, engine, open_tab):
    tab = await open_tab(alice)
    _accepted, script = await ask(tab, engine)
    await script.request.on_queue(2, 1500)
    queued = await tab.hear_until("queued")
    assert (queued["position"], queued["estimate_ms"]) == (2, 1500)
    script.say(sse(choices=[{"delta": {}}], prompt_progress={"total": 200, "cache": 0, "processed": 50}))
    progress = await tab.hear_until("progress")
    assert (progress["phase"], progress["fraction"]) == ("prompt", 0.25)
    script.finish("x")
    await tab.hear_until("done")


async def test_bytes_cut_anywhere_give_the_same_text(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    stream = b"".join([*words("很简单 🙂 done"), *ENDING])
    script.say(*(stream[i : i + 1] for i in range(len(stream))), None)
    await tab.hear_until("done")
    assert tab.text_of(accepted["message"]) == "很简单 🙂 done"


async def test_text_no_database_takes_is_made_storable(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine, "null \x00 and half \ud83d")
    script.say(b'data: {"choices":[{"delta":{"content":"a\\u0000b\\ud83d"}}]}\n\n', *ENDING, None)
    await tab.hear_until("done")
    assert "\x00" not in (await read(accepted["question"])).text
    assert "\x00" not in (await read(accepted["message"])).text


# -- stop, again, several at once ------------------------------------------------------------------------------------------
async def test_stop_keeps_the_text_and_closes_the_stream(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    script.say(*words("half an answer"))
    await tab.hear_until("delta")
    await tab.say(type="stop", message=accepted["message"])
    done = await tab.hear_until("done")
    assert done["state"] == "stopped"
    await asyncio.wait_for(script.closed.wait(), 5)
    message = await read(accepted["message"])
    assert message.state == "stopped"
    assert message.text == tab.text_of(accepted["message"]) != ""


async def test_stop_while_waiting_for_a_slot(alice, engine, open_tab, monkeypatch):
    cancelled = asyncio.Event()

    async def waits(request):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    monkeypatch.setattr(generation, "infer", waits)
    tab = await open_tab(alice)
    await tab.say(type="send", model="m", content="x", client_id="c")
    accepted = await tab.hear_until("accepted")
    await tab.say(type="stop", message=accepted["message"])
    assert (await tab.hear_until("done"))["state"] == "stopped"
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_regenerate_makes_a_sibling(alice, engine, open_tab):
    tab = await open_tab(alice)
    first, script = await ask(tab, engine, "q")
    script.finish("old")
    await tab.hear_until("done")
    await tab.say(type="regenerate", message=first["message"], client_id="r", model="other")
    again = await tab.hear_until("accepted")
    script = await engine.next()
    assert script.request.body["messages"] == [{"role": "user", "content": "q"}]
    assert script.request.body["model"] == "other"
    assert (again["question"], again["regenerates"]) == (first["question"], first["message"])
    script.finish("new")
    await tab.hear_until("done")

    def branch():
        conversation = selectors.conversation(alice.id, first["conversation"])
        return [row.text for row in selectors.messages(conversation)[0]]

    assert await database_sync_to_async(branch)() == ["q", "new"]
    assert (await read(first["message"])).text == "old"


async def test_two_tabs_hear_the_same(alice, engine, open_tab):
    one, two = await open_tab(alice), await open_tab(alice)
    first, script = await ask(one, engine)
    script.finish("a")
    await one.hear_until("done")
    await two.say(type="watch", conversation=first["conversation"])
    assert (await two.hear_until("watching"))["running"] == []
    second, script = await ask(one, engine, "next", conversation=first["conversation"])
    seen = await two.hear_until("accepted")
    assert (seen["message"], seen["content"]) == (second["message"], "next")
    script.finish("and an answer for both")
    await one.hear_until("done")
    await two.hear_until("done")
    assert one.text_of(second["message"]) == two.text_of(second["message"]) == "and an answer for both"


async def test_who_watches_in_the_middle_gets_all_of_it(alice, engine, open_tab):
    one = await open_tab(alice)
    accepted, script = await ask(one, engine)
    script.say(*words("the beginning of it, "))
    rendered = await one.hear_until("render")
    two = await open_tab(alice)
    await two.say(type="watch", conversation=accepted["conversation"])
    first = await two.hear_until("render", "delta")
    assert first["seq"] >= rendered["seq"]
    script.finish("and the end")
    done = await two.hear_until("done")
    assert done["html"] == "<p>the beginning of it, and the end</p>\n"


async def test_a_second_question_while_one_is_answered_is_refused(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    await tab.say(type="send", model="m", content="x", conversation=accepted["conversation"], client_id="c2")
    error = await tab.hear_until("error")
    assert (error["code"], error["client_id"]) == ("conversation_busy", "c2")
    script.finish("x")
    await tab.hear_until("done")


async def test_a_user_has_only_so_many_answers_at_once(alice, engine, open_tab):
    tab = await open_tab(alice)
    for _ in range(live.MOST_RUNNING_PER_USER):
        accepted, _script = await ask(tab, engine)
    await tab.say(type="send", model="m", content="one more", client_id="c")
    assert (await tab.hear_until("error"))["code"] == "too_many_answers"
    await tab.say(type="stop", message=accepted["message"])
    await tab.hear_until("done")
    await ask(tab, engine)


# -- the line drops ----------------------------------------------------------------------------------------------------
async def test_an_answer_goes_on_without_a_socket_and_is_resumed_to_the_byte(alice, engine, open_tab):
    whole = " ".join(f"word{n} 很简单" for n in range(60))
    pieces = words(whole)
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    text, seq = "", 0
    for cut in (3, 11, 26, 40, 55):
        script.say(*pieces[:cut])
        del pieces[:cut]
        event = await tab.hear_until("delta")
        text, seq = text + event["text"], event["seq"]
        await tab.communicator.disconnect()
        tab = await open_tab(alice)
        await tab.say(type="resume", message=accepted["message"], after=seq)
    script.say(*pieces, *ENDING, None)
    await tab.hear_until("done")
    assert text + tab.text_of(accepted["message"]) == whole
    assert (await read(accepted["message"])).text == whole


async def test_resume_after_the_end_from_memory_and_from_the_database(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    script.say(sse(choices=[{"delta": {"reasoning_content": "hm "}}]))
    script.finish("the whole answer")
    await tab.hear_until("done")
    for forget in (False, True):
        if forget:
            live.live.forget(uuid.UUID(accepted["message"]))
        late = await open_tab(alice)
        await late.say(type="resume", message=accepted["message"], after=7)
        done = await late.hear_until("done")
        assert late.text_of(accepted["message"]) == "hm the whole answer"[7:]
        assert done["html"] == "<p>the whole answer</p>\n"
        assert done["usage"]["completion_tokens"] == 7


async def test_the_text_is_in_the_database_while_it_is_written(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    script.say(*words("so far"))
    message = await eventually(lambda: stored(accepted["message"]) if stored(accepted["message"]).text else None)
    assert (message.state, message.text) == ("running", "so far")


async def test_an_answer_of_another_process_is_followed_and_stopped_through_the_database(
    alice, engine, open_tab, monkeypatch
):
    monkeypatch.setattr("chat.recordings.LOOK_EVERY", 0.02)

    def begin():
        conversation = Conversation.objects.create(user=alice, updated_at="2024-01-01T00:00:00Z")
        question = Message.objects.create(conversation=conversation, role="user", text="q")
        return Message.objects.create(
            conversation=conversation, parent=question, role="assistant", state="running", text="one", owner="far:1:1.0"
        )

    message = await database_sync_to_async(begin)()
    tab = await open_tab(alice)
    await tab.say(type="resume", message=str(message.id), after=0)
    assert (await tab.hear_until("delta"))["text"] == "one"
    await database_sync_to_async(Message.objects.filter(id=message.id).update)(text="one two")
    assert (await tab.hear_until("delta"))["text"] == " two"
    await tab.say(type="stop", message=str(message.id))
    assert (await tab.hear_until("done"))["state"] == "stopped"
    snapshot = services.Snapshot(message.id, "running", "one two three", "")
    assert await database_sync_to_async(services.save_many)([snapshot]) == {message.id}


# -- it goes wrong -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "code", "retry"),
    [
        (errors.model_not_found("m"), "model_not_found", False),
        (errors.insufficient_quota(), "insufficient_quota", False),
        (errors.overloaded(3), "overloaded", True),
        (errors.context_length_exceeded(9000, 4096), "context_length_exceeded", False),
        (RuntimeError("bug"), "internal_error", True),
    ],
)
async def test_a_refusal_ends_the_message_with_its_reason(alice, engine, open_tab, error, code, retry):
    engine.refuse_with = error
    tab = await open_tab(alice)
    accepted, _script = await ask(tab, engine)
    event = await tab.hear_until("error")
    assert (event["code"], event["retry"], event["message_id"]) == (code, retry, accepted["message"])
    if code == "context_length_exceeded":
        assert "9000" in event["message"]
        assert "4096" in event["message"]
        assert "new conversation" in event["message"]
    message = await read(accepted["message"])
    assert message.state == "error"
    assert message.error == {"code": code, "message": event["message"], "retry": retry}


@pytest.mark.parametrize(
    "ending",
    [
        [None],  # the stream ends without saying so
        [sse(error={"code": "upstream_error", "message": "it died"}), None],
        [b"data: " + b"x" * 5_000_000, None],
    ],
)
async def test_an_engine_that_dies_in_the_middle_leaves_text_and_an_error(alice, engine, open_tab, ending):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    script.say(*words("half an"), *ending)
    event = await tab.hear_until("error")
    assert (event["code"], event["retry"]) == ("upstream_error", True)
    message = await read(accepted["message"])
    assert (message.state, message.text) == ("error", "half an")


async def test_an_endless_answer_is_ended(alice, engine, open_tab, monkeypatch):
    monkeypatch.setattr(generation, "LONGEST_ANSWER", 1000)
    tab = await open_tab(alice)
    _accepted, script = await ask(tab, engine)
    script.say(*words("word " * 500))
    done = await tab.hear_until("done")
    assert (done["state"], done["finish_reason"]) == ("stopped", "length")
    await asyncio.wait_for(script.closed.wait(), 5)


async def test_a_deleted_conversation_stops_its_answer(alice, engine, open_tab):
    tab = await open_tab(alice)
    accepted, script = await ask(tab, engine)
    script.say(*words("some words"))
    await tab.hear_until("delta")
    await database_sync_to_async(services.delete)(alice.id, accepted["conversation"])
    script.say(*words("more words"))
    assert (await tab.hear_until("done"))["state"] == "stopped"
    await asyncio.wait_for(script.closed.wait(), 5)


# -- who may -----------------------------------------------------------------------------------------------------------
def messages_about(conversation: str, message: str) -> list[dict]:
    return [
        {"type": "send", "conversation": conversation, "model": "m", "content": "x"},
        {"type": "stop", "message": message},
        {"type": "regenerate", "message": message},
        {"type": "resume", "message": message, "after": 0},
        {"type": "watch", "conversation": conversation},
    ]


async def test_another_user_finds_none_of_it(alice, bob, engine, open_tab):
    hers = await open_tab(alice)
    accepted, script = await ask(hers, engine, "a secret")
    script.say(*words("whispered words"))
    await hers.hear_until("delta")
    his = await open_tab(bob)
    for message_id in (accepted["message"], accepted["question"]):
        for message in messages_about(accepted["conversation"], message_id):
            await his.say(**message)
            assert (await his.hear())["code"] == "not_found"
    script.finish("the end")
    done = await hers.hear_until("done")
    assert done["state"] == "done"
    assert {event["type"] for event in his.events} == {"error"}
    assert await his.communicator.receive_nothing(0.1)


async def test_every_message_needs_a_user(engine, open_tab):
    for message in messages_about(str(uuid.uuid4()), str(uuid.uuid4())):
        tab = await open_tab()
        await tab.say(**message)
        assert (await tab.hear())["code"] == "invalid_api_key"
        assert await tab.closed_with() == consumers.NOT_AUTHENTICATED
    assert engine.asked.empty()


async def test_a_token_in_the_first_message(alice, engine, open_tab):
    tab = await open_tab(origin=None)
    await tab.say(type="auth", token=str(await database_sync_to_async(AccessToken.for_user)(alice)))
    accepted, script = await ask(tab, engine)
    script.finish("hello")
    await tab.hear_until("done")
    assert (await read(accepted["message"])).conversation.user_id == alice.id


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "x" * 9000, 5, None])
async def test_a_wrong_token(engine, open_tab, token):
    tab = await open_tab(origin=None)
    await tab.say(type="auth", token=token)
    assert (await tab.hear())["code"] in {"invalid_api_key", "invalid_request"}


async def test_nobody_becomes_somebody_else(alice, bob, engine, open_tab):
    tab = await open_tab(alice)
    await tab.say(type="auth", token=str(await database_sync_to_async(AccessToken.for_user)(bob)))
    assert (await tab.hear())["code"] == "permission_denied"


async def test_who_does_not_log_in_is_cut_off(engine, open_tab, monkeypatch):
    monkeypatch.setattr(consumers, "AUTHENTICATE_WITHIN", 0.05)
    tab = await open_tab()
    assert (await tab.hear())["code"] == "invalid_api_key"
    assert await tab.closed_with() == consumers.NOT_AUTHENTICATED


@pytest.mark.parametrize("blocked", [True, False])
async def test_a_blocked_or_logged_out_user_is_cut_off_while_only_listening(
    alice, engine, open_tab, monkeypatch, blocked
):
    monkeypatch.setattr(consumers, "AUTHENTICATE_WITHIN", 0.05)
    monkeypatch.setattr(consumers, "LOOK_AGAIN_EVERY", 0.05)
    monkeypatch.setattr(callers, "STATE_SECONDS", 0.0)
    tab = await open_tab(alice)
    _accepted, script = await ask(tab, engine)

    def put_out():
        if blocked:
            User.objects.filter(pk=alice.pk).update(is_active=False)
        else:
            from django.contrib.sessions.models import Session

            Session.objects.all().delete()

    await database_sync_to_async(put_out)()
    assert (await tab.hear_until("error"))["code"] == "invalid_api_key"
    assert await tab.closed_with() == consumers.NOT_AUTHENTICATED
    script.say(*words("what they must not hear"))
    assert "what they must not hear" not in json.dumps(tab.events)


@pytest.mark.parametrize(
    ("origin", "host", "may"),
    [
        ("http://localhost", "localhost", True),
        ("http://localhost:8080", "localhost:8080", True),
        ("https://localhost", "localhost:443", True),
        (None, "localhost", True),
        ("http://evil.example", "localhost", False),
        ("http://localhost:9999", "localhost:8080", False),
        ("http://evil.example", "evil.example", False),
        ("null", "localhost", False),
        ("http://localhost.evil.example", "localhost", False),
        ("http://localhost:x", "localhost", False),
        ("", "", False),
    ],
)
async def test_only_our_own_pages_open_it(db, origin, host, may):
    socket = communicator(origin=origin, host=host)
    connected, code = await socket.connect(5)
    assert connected is may
    if may:
        await socket.disconnect()
    else:
        assert code == consumers.WRONG_ORIGIN


async def test_a_cookie_without_an_origin_is_no_login(alice, engine, open_tab):
    tab = await open_tab(alice, origin=None)
    await tab.say(type="watch", conversation=str(uuid.uuid4()))
    assert (await tab.hear())["code"] == "invalid_api_key"


# -- nonsense ----------------------------------------------------------------------------------------------------------
NONSENSE = [
    " ",
    "null",
    "[]",
    "5",
    '"text"',
    "{",
    "{}",
    "[" * 200_000,
    '{"type": null}',
    '{"type": ["send"]}',
    '{"type": "no such"}',
    '{"type": "send"}',
    '{"type": "send", "model": 5, "content": "x"}',
    '{"type": "send", "model": "m", "content": ["x"]}',
    '{"type": "send", "model": "m", "content": "   "}',
    '{"type": "send", "model": "m", "content": "x", "params": []}',
    '{"type": "send", "model": "m", "content": "x", "params": {"temperature": "hot"}}',
    '{"type": "send", "model": "m", "content": "x", "params": {"temperature": NaN}}',
    '{"type": "send", "model": "m", "content": "x", "params": {"temperature": 1e999}}',
    '{"type": "send", "model": "m", "content": "x", "params": {"top_k": 1.5}}',
    '{"type": "send", "model": "m", "content": "x", "params": {"id_slot": 1}}',
    '{"type": "send", "model": "m", "content": "x", "params": {"max_tokens": true}}',
    '{"type": "send", "model": "m", "content": "x", "conversation": 5}',
    '{"type": "send", "model": "m", "content": "x", "conversation": "x"}',
    '{"type": "send", "model": "m", "content": "x", "user": 1}',
    '{"type": "stop"}',
    '{"type": "stop", "message": {}}',
    '{"type": "resume", "message": "00000000-0000-0000-0000-000000000000", "after": -1}',
    '{"type": "resume", "message": "00000000-0000-0000-0000-000000000000", "after": "1"}',
    '{"type": "resume", "message": "00000000-0000-0000-0000-000000000000", "after": true}',
    '{"type": "watch", "conversation": "\\u0000"}',
    "\x00",
    "x" * 2_000_000,
    b"\xff\xfe",
    b'{"type": "stop"}',
]


async def test_nonsense_is_answered_and_the_socket_lives(alice, engine, open_tab):
    tab = await open_tab(alice)
    for nonsense in NONSENSE:
        await tab.communicator.send_to(**{"bytes_data" if isinstance(nonsense, bytes) else "text_data": nonsense})
        event = await tab.hear()
        assert event["type"] == "error", nonsense[:80]
        assert event["code"] in {"invalid_request", "not_found", "request_too_large"}, (nonsense[:80], event)
    assert await database_sync_to_async(Message.objects.count)() == 0
    _accepted, script = await ask(tab, engine)
    script.finish("still here")
    await tab.hear_until("done")
