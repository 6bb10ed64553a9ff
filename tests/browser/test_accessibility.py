"""axe-core on every page in both themes and widths, and the chat with the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESKTOP, PHONE, NewContext, Person, log_in, new_chat
from tests.browser.test_chat_page import ask, last_answer, wait_for_end
from tests.running_service import wait_for

pytestmark = pytest.mark.e2e
ANSWER = "Here it **is**:\n\n```python\nprint(1)\n```\n\nAnd a list:\n\n- `one`\n- [two](https://example.org)\n"


def violations(page: Page, *, only: str = "", but: str = "") -> list[str]:
    """``only``, ``but``: the name of one of axe's rules."""
    options: dict[str, Any] = {"runOnly": [only]} if only else {"rules": {but: {"enabled": False}}} if but else {}
    found: list[dict[str, Any]] = Axe().run(page, options=options).response["violations"]
    return [f"{entry['id']}: {node['html'][:160]}" for entry in found for node in entry["nodes"]]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_have_no_violations(new_context: NewContext, person: Person, theme: str, viewport: dict[str, int]):
    page = new_context(viewport=viewport, color_scheme=theme, bypass_csp=True).new_page()
    for path in ("/login", "/register"):
        page.goto(path)
        assert violations(page) == [], path
    log_in(page, person)
    for path in ("/chat/", "/account", "/account/usage", "/password"):
        page.goto(path)
        assert violations(page) == [], path


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_conversation_and_open_menus_have_no_violations(
    slow_context: NewContext, slow_person: Person, switch: Callable[..., None], theme: str
):
    """With the stand-in: what the small model writes is another Markdown each time."""
    switch(answer=ANSWER, token_seconds=0)
    page = new_chat(slow_context(color_scheme=theme, bypass_csp=True).new_page(), slow_person)
    ask(page, "Show one line of Python as a code block.")
    wait_for_end(page)
    expect(last_answer(page).locator("pre")).to_be_visible()
    assert violations(page) == []
    page.locator("#model-button").click()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.locator("#user-button").click()
    assert violations(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_usage_with_figures_has_no_violations(new_context: NewContext, person: Person, theme: str):
    page = new_context(color_scheme=theme, bypass_csp=True).new_page()
    log_in(page, person)
    expect(page.locator("main[data-line=up]")).to_be_attached()
    ask(page, "Say hello.")
    wait_for_end(page)

    def drawn() -> int:
        page.goto("/account/usage")
        return page.locator("svg.bar-chart").count()

    wait_for(drawn, "the answer in the usage")  # settled a moment after its last word
    assert page.locator(".table-box").count() == 2
    assert violations(page) == []


def test_chat_by_keyboard_alone(chat: Page):
    chat.keyboard.type("Say hello.")
    chat.keyboard.press("Enter")
    wait_for_end(chat)
    chat.locator("#model-button").focus()
    chat.keyboard.press("Enter")
    expect(chat.locator("#model-menu [role=menuitemradio]").first).to_be_focused()
    chat.keyboard.press("Escape")
    expect(chat.locator("#model-button")).to_be_focused()
    row = chat.locator(".row").first
    row.locator("a").focus()
    chat.keyboard.press("Tab")
    chat.keyboard.press("Enter")
    expect(chat.get_by_role("menuitem", name="Rename")).to_be_focused()
    chat.keyboard.press("ArrowDown")
    expect(chat.get_by_role("menuitem", name="Delete")).to_be_focused()
    chat.keyboard.press("Escape")
    expect(row.get_by_role("button", name="Options")).to_be_focused()


def test_screen_readers_hear_sentences(slow_chat: Page, switch: Callable[..., None]):
    switch(answer="The sea is wide. It is deep. Who knows it?", token_seconds=0.01)
    ask(slow_chat, "Write three sentences about the sea.")
    wait_for_end(slow_chat)
    assert slow_chat.locator("#speech p").all_inner_texts() == ["The sea is wide.", "It is deep.", "Who knows it?"]
