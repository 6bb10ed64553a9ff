from __future__ import annotations

import time
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from chat import selectors, services
from chat.live import live
from chat.models import Conversation, Message
from llmplatform.lib.process_identity import own_identity


def _conversations(user, count, title="about {n}"):
    now = timezone.now()
    return Conversation.objects.bulk_create(
        Conversation(user=user, title=title.format(n=n), updated_at=now - timedelta(minutes=n)) for n in range(count)
    )


def _chain(conversation, length, first_text="question {n}"):
    parent, made = None, []
    for n in range(length):
        role = Message.Role.ASSISTANT if n % 2 else Message.Role.USER
        text = first_text.format(n=n) if n % 2 == 0 else f"answer {n}"
        parent = Message.objects.create(conversation=conversation, parent=parent, role=role, text=text)
        made.append(parent)
    return made


def test_list_is_complete_in_order_and_without_repetition(alice):
    made = _conversations(alice, 65)
    # Two with the very same time must neither vanish nor come twice at the edge of a page.
    Conversation.objects.filter(id__in=[made[29].id, made[30].id]).update(updated_at=made[29].updated_at)
    seen, cursor = [], ""
    while True:
        rows, cursor = selectors.conversations(alice.id, cursor)
        seen += [row.id for row in rows]
        if not cursor:
            break
    assert len(seen) == 65
    assert set(seen) == {conversation.id for conversation in made}
    assert seen[:3] == [conversation.id for conversation in made[:3]]


def test_list_shows_only_ones_own(alice, bob):
    _conversations(bob, 3)
    assert selectors.conversations(alice.id) == ([], "")


def test_list_of_10000_costs_one_query_and_little_time(alice, django_assert_num_queries):
    made = _conversations(alice, 10_000)
    with django_assert_num_queries(1):
        _rows, cursor = selectors.conversations(alice.id)
    started = time.thread_time()
    with django_assert_num_queries(1):
        rows, _cursor = selectors.conversations(alice.id, cursor)
    assert time.thread_time() - started < 0.1
    assert rows[0].id == made[30].id
    deep = f"{made[9000].updated_at.isoformat()}_{made[9000].id}"
    started = time.thread_time()
    rows, _cursor = selectors.conversations(alice.id, deep)
    assert time.thread_time() - started < 0.1
    assert rows[0].id == made[9001].id


def test_search_finds_titles_and_texts_of_ones_own(alice, bob):
    mine = _conversations(alice, 3, "第{n}次聊天")
    _chain(mine[1], 2, "很简单的问题")
    theirs = _conversations(bob, 1)
    _chain(theirs[0], 2, "很简单的问题")
    assert [row.id for row in selectors.conversations(alice.id, query="简单")[0]] == [mine[1].id]
    assert [row.id for row in selectors.conversations(alice.id, query="第2次")[0]] == [mine[2].id]
    assert selectors.conversations(alice.id, query="100%_") == ([], "")


@pytest.mark.parametrize("cursor", ["x", "_", "2024-01-01_x", "2024-01-01T00:00:00_" + "0" * 32, "9" * 5000, "\x00"])
def test_a_wrong_cursor_is_refused(alice, cursor):
    with pytest.raises(services.ChatError) as refusal:
        selectors.conversations(alice.id, cursor)
    assert refusal.value.code == "invalid_request"


def test_somebody_elses_conversation_is_not_found(alice, bob):
    theirs = _conversations(bob, 1)[0]
    for id_ in (theirs.id, str(theirs.id), uuid.uuid4(), "nonsense", ""):
        with pytest.raises(services.NotFound):
            selectors.conversation(alice.id, id_)


def test_messages_are_the_newest_branch_oldest_first(alice):
    conversation = _conversations(alice, 1)[0]
    first, old_answer = _chain(conversation, 2)
    new_answer = Message.objects.create(conversation=conversation, parent=first, role="assistant", text="better")
    rows, cursor = selectors.messages(conversation)
    assert [row.id for row in rows] == [first.id, new_answer.id]
    assert old_answer.id not in {row.id for row in rows}
    assert cursor == ""
    assert rows[1].html == "<p>better</p>\n"
    assert rows[1].last_seq == len("better")


def test_messages_come_in_pages_from_the_end(alice, django_assert_num_queries):
    conversation = _conversations(alice, 1)[0]
    made = _chain(conversation, 70)
    with django_assert_num_queries(2):
        rows, cursor = selectors.messages(conversation)
    assert [row.id for row in rows] == [message.id for message in made[40:]]
    rows, cursor = selectors.messages(conversation, cursor)
    assert [row.id for row in rows] == [message.id for message in made[10:40]]
    rows, cursor = selectors.messages(conversation, cursor)
    assert [row.id for row in rows] == [message.id for message in made[:10]]
    assert cursor == ""


def test_a_running_message_whose_writer_is_gone_reads_as_interrupted_and_keeps_its_text(alice):
    conversation = _conversations(alice, 1)[0]
    question = _chain(conversation, 1)[0]
    host = own_identity().split(":")[0]
    for owner in ("", f"{host}:999999999:1.00", own_identity()):  # own, but no such generation here
        answer = Message.objects.create(
            conversation=conversation, parent=question, role="assistant", state="running", text="half a", owner=owner
        )
        row = selectors.messages(conversation)[0][-1]
        assert (row.id, row.state, row.text) == (answer.id, "error", "half a")
        assert row.error["code"] == "interrupted"
        assert row.error["retry"] is True
        assert row.error["message"]
        answer.refresh_from_db()
        assert answer.state == "error"


def test_a_running_message_of_this_process_stays_running(alice):
    conversation = _conversations(alice, 1)[0]
    question = _chain(conversation, 1)[0]
    answer_id = uuid.uuid4()
    live.reserve(answer_id, alice.id)
    try:
        Message.objects.create(
            id=answer_id,
            conversation=conversation,
            parent=question,
            role="assistant",
            state="running",
            owner=own_identity(),
        )
        assert selectors.messages(conversation)[0][-1].state == "running"
    finally:
        live.release(answer_id)
