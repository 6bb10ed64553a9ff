"""An answer that the balance cuts says so under it, when it ends and when the page is opened again."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Person, registered
from tests.browser.test_chat_page import SHORT, ask, last_answer, wait_for_end, wait_for_text

pytestmark = pytest.mark.e2e

NOTES = {
    "en-US": "The answer ends here: your balance does not pay for more.",
    "zh-CN": "回答到此为止：余额不足以继续生成。",
}


@pytest.fixture
def poor_person(slow_service) -> Person:
    """Whose balance pays for a prompt and some words: about 110 and 40 tokens."""
    person = registered(slow_service)
    code = (
        "from accounts import quota; from accounts.models import Wallet;"
        f"wallet = Wallet.objects.get(user__username={person.name!r});"
        "quota.adjust(wallet, 150_000 - wallet.available, 'tests')"
    )
    done = slow_service.command("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
    return person


@pytest.mark.parametrize("language", NOTES)
def test_an_answer_cut_to_the_balance(slow_context, poor_person, switch, language):
    page = slow_context(locale=language).new_page()
    page.goto("/login")
    page.locator("[name=username]").fill(poor_person.name)
    page.locator("[name=password]").fill(poor_person.password)
    page.locator("main form button.primary").click()
    expect(page.locator("main[data-line=up]")).to_be_attached()
    switch(token_seconds=1)
    ask(page, SHORT)
    wait_for_text(page)
    expect(last_answer(page).locator(".cut")).to_be_hidden()
    switch(token_seconds=0)
    wait_for_end(page)
    expect(last_answer(page).locator(".cut")).to_be_visible()
    expect(last_answer(page).locator(".cut")).to_have_text(NOTES[language])
    expect(page.locator("#speech")).to_contain_text(NOTES[language])
    page.reload()
    expect(last_answer(page).locator(".cut")).to_have_text(NOTES[language])
    expect(last_answer(page).locator(".cut")).to_be_visible()
