"""An answer outlives a reload, a cut line, a second tab. With an engine that is slow in a way one can count on."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Watch
from tests.browser.test_chat_page import (
    ANSWER_TIME,
    LONG,
    SHORT,
    ask,
    last_answer,
    text_of,
    wait_for_end,
    wait_for_more,
    wait_for_text,
)

pytestmark = pytest.mark.e2e


def test_reload_in_the_middle_of_an_answer(slow_chat: Page):
    ask(slow_chat, LONG)
    wait_for_text(slow_chat)
    slow_chat.wait_for_url(re.compile(r"/chat/.+"))
    before = text_of(last_answer(slow_chat))
    slow_chat.reload()
    expect(last_answer(slow_chat)).to_have_attribute("data-state", "running")
    expect(last_answer(slow_chat).locator(".prose")).to_contain_text(before[:30])
    expect(slow_chat.get_by_role("button", name="Stop")).to_be_visible()
    wait_for_more(slow_chat)
    slow_chat.get_by_role("button", name="Stop").click()
    wait_for_end(slow_chat, "stopped")


def test_second_tab_follows_live(slow_chat: Page):
    ask(slow_chat, LONG)
    slow_chat.wait_for_url(re.compile(r"/chat/.+"))
    other = slow_chat.context.new_page()
    other.goto(slow_chat.url)
    wait_for_text(other)
    slow_chat.get_by_role("button", name="Stop").click()
    wait_for_end(slow_chat, "stopped")
    wait_for_end(other, "stopped")
    assert text_of(last_answer(other)) == text_of(last_answer(slow_chat))
    ask(other, SHORT)
    expect(slow_chat.locator(".question")).to_have_count(2)
    wait_for_text(slow_chat)


def test_text_stays_when_the_line_is_down(slow_chat: Page, slow_watch: Watch):
    slow_chat.context.set_offline(True)
    expect(slow_chat.locator("main[data-line=down]")).to_be_attached()
    expect(slow_chat.locator("#line-state")).to_be_visible()
    ask(slow_chat, SHORT)
    expect(slow_chat.locator("#note")).to_be_visible()
    expect(slow_chat.locator("#input")).to_have_value(SHORT)
    slow_chat.context.set_offline(False)
    expect(slow_chat.locator("main[data-line=up]")).to_be_attached()
    expect(slow_chat.locator("#line-state")).to_be_hidden()
    slow_chat.locator("#input").press("Enter")
    wait_for_text(slow_chat)
    slow_watch.problems.clear()  # the browser notes each attempt to connect while offline


def test_answer_goes_on_after_a_cut_line(slow_chat: Page, slow_watch: Watch):
    ask(slow_chat, LONG)
    wait_for_text(slow_chat)
    slow_chat.context.set_offline(True)
    expect(slow_chat.locator("main[data-line=down]")).to_be_attached()
    shown = text_of(last_answer(slow_chat))
    slow_chat.context.set_offline(False)
    expect(last_answer(slow_chat).locator(".prose")).not_to_have_text(shown, timeout=ANSWER_TIME)
    slow_chat.get_by_role("button", name="Stop").click()
    wait_for_end(slow_chat, "stopped")
    followed = text_of(last_answer(slow_chat))
    slow_chat.reload()
    assert text_of(last_answer(slow_chat)) == followed
    slow_watch.problems.clear()
