"""The chat page with a real model behind it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import PHONE, NewContext, Person, log_in
from tests.running_service import Service

pytestmark = pytest.mark.e2e

LONG = "Write a very long story about a lighthouse keeper, with many chapters."
SHORT = "Say hello."
ANSWER_TIME = 90_000  # milliseconds, on a machine that does other things too


def ask(page: Page, words: str) -> None:
    page.locator("#input").fill(words)
    page.keyboard.press("Enter")


def last_answer(page: Page) -> Locator:
    return page.locator(".answer").last


def text_of(answer: Locator) -> str:
    return answer.locator(".prose").text_content() or ""


def wait_for_more(page: Page) -> None:
    expect(last_answer(page).locator(".prose")).not_to_have_text(text_of(last_answer(page)), timeout=ANSWER_TIME)


def wait_for_text(page: Page, state: str = "running") -> None:
    expect(page.locator(f".answer[data-state={state}] .prose").last).to_have_text(
        re.compile(r"\w+ \w+"), timeout=ANSWER_TIME
    )


def wait_for_end(page: Page, state: str = "done") -> None:
    expect(last_answer(page)).to_have_attribute("data-state", state, timeout=ANSWER_TIME)


def test_question_and_streamed_answer(chat: Page):
    ask(chat, SHORT)
    expect(chat.locator(".question .bubble")).to_have_text(SHORT)
    expect(chat.locator("#input")).to_have_value("")
    wait_for_end(chat)
    expect(last_answer(chat).locator(".prose")).to_have_text(re.compile(r"\w+"))
    expect(last_answer(chat).locator(".stats")).to_have_text(
        re.compile(r"\d+ tokens · [\d.]+ tokens/s · first token after .+ s · \S+")
    )
    expect(chat).to_have_url(re.compile(r"/chat/[0-9a-f-]{36}$"))
    expect(chat.locator(".row a[aria-current=page]")).to_have_text(SHORT)
    expect(chat).to_have_title(re.compile(SHORT))


def test_stop_keeps_what_was_written(slow_chat: Page):
    """The small model may end its answer before it is stopped."""
    ask(slow_chat, LONG)
    wait_for_text(slow_chat)
    slow_chat.get_by_role("button", name="Stop").click()
    wait_for_end(slow_chat, "stopped")
    text = text_of(last_answer(slow_chat))
    expect(last_answer(slow_chat).locator(".stats")).to_contain_text("Stopped")
    expect(slow_chat.get_by_role("button", name="Send")).to_be_visible()
    slow_chat.reload()
    expect(last_answer(slow_chat).locator(".prose")).to_have_text(text)
    expect(last_answer(slow_chat)).to_have_attribute("data-state", "stopped")


def test_answer_again(chat: Page):
    ask(chat, SHORT)
    wait_for_end(chat)
    first = last_answer(chat).get_attribute("data-id")
    last_answer(chat).get_by_role("button", name="Answer again").click()
    expect(last_answer(chat)).not_to_have_attribute("data-id", str(first))
    wait_for_end(chat)
    expect(chat.locator(".answer")).to_have_count(1)
    expect(chat.locator(".question")).to_have_count(1)


def test_enter_of_an_input_method_does_not_send(chat: Page):
    field = chat.locator("#input")
    field.fill("nihao")
    composing = """(element, changes) => element.dispatchEvent(
        new KeyboardEvent("keydown", {key: "Enter", bubbles: true, cancelable: true, ...changes}))"""
    field.evaluate(composing, {"isComposing": True})
    field.evaluate(composing, {"keyCode": 229})
    expect(chat.locator(".question")).to_have_count(0)
    expect(field).to_have_value("nihao")
    chat.keyboard.press("Shift+Enter")
    expect(field).to_have_value("nihao\n")
    expect(chat.locator(".question")).to_have_count(0)


def test_draft_is_kept_for_each_conversation(chat: Page):
    ask(chat, SHORT)
    wait_for_end(chat)
    chat.locator("#input").fill("half a thought")
    chat.get_by_role("link", name="New chat").first.click()
    expect(chat.locator("main[data-empty]")).to_be_attached()
    expect(chat.locator("#input")).to_have_value("")
    chat.go_back()
    expect(chat.locator(".question")).to_have_count(1)
    expect(chat.locator("#input")).to_have_value("half a thought")


def test_rename_search_and_delete(chat: Page):
    ask(chat, SHORT)
    wait_for_end(chat)
    row = chat.locator(f".row[data-id='{chat.url.rsplit('/', 1)[1]}']")
    row.hover()
    row.get_by_role("button", name="Options").click()
    chat.get_by_role("menuitem", name="Rename").click()
    chat.get_by_label("Title").fill("这很简单")
    chat.keyboard.press("Enter")
    expect(row.locator("a")).to_have_text("这很简单")
    chat.get_by_label("Search conversations").fill("简单")
    expect(chat.locator(".row")).to_have_count(1)
    row.hover()
    row.get_by_role("button", name="Options").click()
    chat.get_by_role("menuitem", name="Delete").click()
    chat.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    expect(chat.locator("main[data-empty]")).to_be_attached()


def test_copying_an_answer(new_context: NewContext, person: Person):
    context = new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    log_in(page, person)
    expect(page.locator("main[data-line=up]")).to_be_attached()
    ask(page, SHORT)
    wait_for_end(page)
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.locator(".toast")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == last_answer(page).locator(".prose").inner_text().strip()


def test_phone_has_the_list_in_a_drawer(new_context: NewContext, person: Person):
    page = new_context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
    log_in(page, person)
    expect(page.locator("main[data-line=up]")).to_be_attached()
    sidebar = page.locator("#sidebar")
    expect(sidebar).not_to_be_in_viewport()
    page.get_by_role("button", name="Conversations").click()
    expect(sidebar).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(sidebar).not_to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


LONG_TALK = """
from django.utils import timezone
from accounts.models import User
from chat.models import Conversation, Message
talk = Conversation.objects.create(user=User.objects.get(username={name!r}), title="Long", updated_at=timezone.now())
parent = None
for number in range(70):
    role = "assistant" if number % 2 else "user"
    parent = Message.objects.create(conversation=talk, parent=parent, role=role, text="Text %d. " % number * (number % 40 + 1))
print(talk.id)
"""


def test_long_conversation_opens_at_its_end_and_loads_older_ones(chat: Page, service: Service, person: Person):
    made = service.command("shell", "-v0", "-c", LONG_TALK.format(name=person.name))
    chat.goto(f"/chat/{made.stdout.strip()}")
    expect(chat.locator("main[data-line=up]")).to_be_attached()
    expect(chat.locator(".message")).to_have_count(30)
    expect(chat.locator(".foot").last).to_be_in_viewport(ratio=1)
    expect(chat.locator("#down")).to_be_hidden()
    chat.locator("#scroll").hover()
    for shown in (60, 70):
        chat.mouse.wheel(0, -100_000)
        expect(chat.locator(".message")).to_have_count(shown)
    chat.mouse.wheel(0, -100_000)
    expect(chat.locator(".message").first).to_contain_text("Text 0.")
    chat.locator("#down").click()
    expect(chat.locator(".foot").last).to_be_in_viewport(ratio=1)


def test_page_is_light_and_its_files_are_kept(new_context: NewContext, person: Person):
    page = new_context().new_page()
    log_in(page, person)
    page.goto("about:blank")
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.clearBrowserCache")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto("/chat/", wait_until="networkidle")
    assert len(sizes) > 5
    assert sum(sizes) <= 100_000
    sizes.clear()
    page.goto("/chat/", wait_until="networkidle")
    assert len([size for size in sizes if size]) == 1  # the page itself
