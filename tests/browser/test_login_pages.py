"""Logging in, registering, the first password, language and theme, in a real browser."""

from __future__ import annotations

import re
import secrets

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewContext, Person, Watch, log_in
from tests.running_service import Service

pytestmark = pytest.mark.e2e


def test_login_leads_to_the_chat(page: Page, person: Person):
    page.goto("/")
    expect(page).to_have_url(re.compile("/login"))
    log_in(page, person)
    expect(page).to_have_url(re.compile("/chat/$"))
    expect(page.locator("#input")).to_be_focused()


def test_wrong_password_is_told_and_the_name_stays(page: Page, person: Person):
    log_in(page, Person(person.name, "not the password"))
    expect(page.get_by_role("alert")).to_contain_text("not right")
    expect(page.get_by_label("User name or email address")).to_have_value(person.name)


def test_password_can_be_shown(page: Page):
    page.goto("/login")
    field = page.get_by_label("Password", exact=True)
    field.fill("visible")
    page.get_by_role("button", name="Show the password").click()
    expect(field).to_have_attribute("type", "text")


def test_register_then_log_out(page: Page):
    name = "new-" + secrets.token_hex(3)
    page.goto("/register")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill("plenty of rain today")
    page.get_by_role("button", name="Make an account").click()
    expect(page.locator("main[data-line=up]")).to_be_attached()
    page.locator("#user-button").click()
    page.get_by_role("menuitem", name="Log out").click()
    expect(page).to_have_url(re.compile("/login"))


def test_first_password_must_be_changed(page: Page, service: Service):
    person = Person("first-" + secrets.token_hex(3))
    code = (
        "from accounts import services;"
        f"services.create_user({person.name!r}, {person.password!r}, must_change_password=True)"
    )
    assert service.command("shell", "-v0", "-c", code).returncode == 0
    log_in(page, person)
    expect(page).to_have_url(re.compile("/password"))
    page.goto("/chat/")
    expect(page).to_have_url(re.compile("/password"))
    page.get_by_label("New password").fill("plenty of rain today")
    page.get_by_role("button", name="Change password").click()
    expect(page.locator("#composer")).to_be_visible()


def test_language_switch_is_remembered(page: Page, person: Person):
    page.goto("/login")
    page.get_by_role("button", name="简体中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-hans")
    page.goto("/register")
    expect(page.locator("html")).to_have_attribute("lang", "zh-hans")
    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_theme_follows_the_system_until_one_chooses(new_context: NewContext):
    page = new_context(color_scheme="dark").new_page()
    page.goto("/login")
    html = page.locator("html")
    expect(html).to_have_attribute("data-theme", "dark")
    page.emulate_media(color_scheme="light")
    expect(html).to_have_attribute("data-theme", "light")
    page.get_by_role("button", name="Dark").click()
    expect(html).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(html).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")


def test_unknown_address_says_what_to_do(page: Page, watch: Watch):
    answer = page.goto("/nothing-here")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("link", name="To the start page")).to_be_visible()
    watch.problems.clear()  # the browser notes the 404 itself


def test_account_page_copies_the_example(new_context: NewContext, person: Person):
    context = new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    log_in(page, person)
    page.goto("/account")
    with page.expect_navigation():  # what the button does is in place when the page is loaded
        page.get_by_role("button", name="Make a token for 24 hours").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    assert "Bearer ey" in page.evaluate("navigator.clipboard.readText()")
