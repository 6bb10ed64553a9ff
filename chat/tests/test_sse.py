from __future__ import annotations

import pytest

from chat.sse import LONGEST_EVENT, EventParser, EventTooLong

STREAM = (
    ": a comment\n\n"
    'data: {"a": "héllo 很简单 🙂"}\n\n'
    "event: x\r\nid: 7\r\ndata: one\r\ndata:two\r\n\r\n"
    "\n\n"
    "data: [DONE]\n\n"
).encode()
EVENTS = ['{"a": "héllo 很简单 🙂"}', "one\ntwo", "[DONE]"]


def test_events_are_the_same_wherever_the_bytes_are_cut():
    for cut in range(len(STREAM) + 1):
        parser = EventParser()
        assert parser.feed(STREAM[:cut]) + parser.feed(STREAM[cut:]) == EVENTS


def test_byte_by_byte():
    parser = EventParser()
    assert [event for i in range(len(STREAM)) for event in parser.feed(STREAM[i : i + 1])] == EVENTS


def test_bytes_that_are_no_text_do_no_harm():
    assert EventParser().feed(b"data: \xff\xfe\n\n\x80\n\n") == ["\ufffd\ufffd"]


def test_an_event_without_end_is_refused():
    parser = EventParser()
    for _ in range(LONGEST_EVENT // 65536):
        assert parser.feed(b"x" * 65536) == []
    with pytest.raises(EventTooLong):
        parser.feed(b"x")
