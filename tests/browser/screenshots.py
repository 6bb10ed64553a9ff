"""Pictures of every page of a running service, for people to look at: ``python -m tests.browser.screenshots URL USER PASSWORD``.

Into tests/output/: each page in both widths, both themes and both languages, with one real conversation and without.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.chromium import launch

OUTPUT = Path(__file__).resolve().parent.parent / "output"
SIZES = {"desktop": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
QUESTION = "Explain in three short points why the sky is blue, then show one line of Python."
CONSOLE = {
    "overview": "/admin/",
    "users": "/admin/accounts/user/",
    "person": "/admin/accounts/user/1/change/",
    "credits": "/admin/accounts/user/credits/",
    "groups": "/admin/accounts/group/",
    "new-group": "/admin/accounts/group/add/",
    "keys": "/admin/accounts/apikey/",
    "new-key": "/admin/accounts/apikey/add/",
    "invites": "/admin/accounts/invite/",
    "balances": "/admin/accounts/wallet/",
    "ledger": "/admin/accounts/ledgerentry/?owner=1",
    "codes": "/admin/accounts/redeembatch/",
    "new-codes": "/admin/accounts/redeembatch/add/",
    "prices": "/admin/accounts/modelpolicy/",
    "top-up": "/admin/accounts/user/1/top_up/",
    "usage": "/admin/usage/?period=30days",
    "audit": "/admin/accounts/auditentry/",
    "add-model": "/admin/models_app/modelconfig/add/",
    "model-config": "/admin/models_app/modelconfig/config/",
}
ANSWER_TIME = 120_000  # milliseconds; a small machine with a larger model takes its time


def pictures(browser: Browser, base: str, name: str, password: str) -> None:
    shown = itertools.product(SIZES.items(), ("light", "dark"), ("en", "zh-hans"))
    for (size, viewport), theme, language in shown:
        context = browser.new_context(
            base_url=base, viewport=viewport, color_scheme=theme, locale="zh-CN" if language != "en" else "en-US"
        )
        page = context.new_page()
        suffix = f"{size}-{theme}-{language}"
        pages_before_login(page, suffix)
        log_in(page, name, password)
        pages_after_login(page, suffix, phone=size == "phone")
        context.close()


def log_in(page: Page, name: str, password: str) -> None:
    page.goto("/login")
    page.locator("[name=username]").fill(name)
    page.locator("[name=password]").fill(password)
    page.locator("main form button.primary").click()
    expect(page.locator("#composer")).to_be_visible()


def pages_before_login(page: Page, suffix: str) -> None:
    page.goto("/login")
    picture(page, "login", suffix)
    page.goto("/register")
    picture(page, "register", suffix)
    page.goto("/nothing-here")
    picture(page, "error", suffix)


def pages_after_login(page: Page, suffix: str, *, phone: bool) -> None:
    picture(page, "chat-empty", suffix)
    page.locator("#model-button").click()
    picture(page, "chat-models", suffix)
    page.keyboard.press("Escape")
    page.locator("#input").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".answer[data-state=running] .prose:not(:empty)")).to_be_visible(timeout=ANSWER_TIME)
    picture(page, "chat-writing", suffix)
    expect(page.locator(".answer[data-state=done]")).to_be_visible(timeout=ANSWER_TIME)
    picture(page, "chat", suffix)
    if phone:
        page.locator("#drawer-button").click()
    page.locator("#user-button").click()
    picture(page, "chat-menu", suffix)
    page.goto("/account")
    picture(page, "account", suffix, full=True)
    for name in ("balance", "keys", "usage", "security"):
        page.goto(f"/account/{name}")
        picture(page, f"account-{name}", suffix, full=True)
    page.goto("/password")
    picture(page, "password", suffix)
    for name, path in CONSOLE.items():
        answer = page.goto(path)
        if answer is not None and answer.ok:  # as far as this person may see it
            page.wait_for_load_state("networkidle")
            picture(page, f"console-{name}", suffix, full=True)


def picture(page: Page, name: str, suffix: str, *, full: bool = False) -> None:
    page.screenshot(path=OUTPUT / f"{name}-{suffix}.png", full_page=full, animations="disabled")


def main(base: str, name: str, password: str) -> None:
    OUTPUT.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        pictures(browser, base, name, password)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
