"""What every page tells the browser: nothing inline, nothing from elsewhere, in no frame; and cookies no script needs are kept
from scripts. Over TLS: ``tests/service/test_tls.py``."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from accounts import services
from tests.permissions.console_rows import CONSOLE_ROWS
from tests.permissions.expected import assert_none, browser_of, visit
from tests.permissions.page_rows import PAGE_ROWS
from tests.permissions.world import World, make_world

pytestmark = pytest.mark.django_db
POLICY = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:",
    "font-src": "'self'", "connect-src": "'self'", "form-action": "'self'", "base-uri": "'none'",
    "frame-ancestors": "'none'", "manifest-src": "'self'",
}  # fmt: skip
# Unfold's Alpine compiles its attributes and writes its colours as inline styles; inline scripts never run.
CONSOLE = {**POLICY, "script-src": "'self' 'unsafe-eval'", "style-src": "'self' 'unsafe-inline'"}
OTHERS = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}


@pytest.fixture
def world(settings: Any) -> World:
    settings.REGISTRATION = "open"
    return make_world()


def policy_of(answer: Any) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in answer.headers.get("Content-Security-Policy", "").split(";"))
    return {name: value for name, _space, value in parts}


def complaint(path: str, answer: Any) -> list[str]:
    wanted = CONSOLE if path.startswith("admin/") else POLICY
    told = {name: answer.headers.get(name) for name in OTHERS}
    return [] if policy_of(answer) == wanted and told == OTHERS else [f"{path}: {policy_of(answer)} {told}"]


@pytest.mark.parametrize("caller", ["anyone", "user", "admin"])
def test_every_page(world: World, caller: str) -> None:
    browser = browser_of(caller, world, raise_request_exception=False)
    paths = [row[0] for row in [*PAGE_ROWS, *CONSOLE_ROWS]] + ["api/docs", "no-such-page", "api/v1/no-such"]
    assert_none([line for path in paths for line in complaint(path, visit(browser, "GET", world.url(path, caller)))])


def test_no_page_of_ours_holds_inline_script_or_style(world: World) -> None:
    """The policy would only hide what does not work then."""
    browser = browser_of("user", world)
    for path in (row[0] for row in PAGE_ROWS if "GET" in row[1]):
        text = visit(browser, "GET", world.url(path)).content.decode()
        assert " style=" not in text, path
        assert " onclick=" not in text, path
        assert "<script>" not in text, path


def test_cookies(world: World) -> None:
    services.create_user("anna", "plenty of rain today")
    browser = Client()
    browser.get("/login")
    browser.post("/login", {"username": "anna", "password": "plenty of rain today"})
    session, csrf = browser.cookies["sessionid"], browser.cookies["csrftoken"]
    assert (session["httponly"], session["samesite"], csrf["samesite"]) == (True, "Lax", "Lax")
    assert not session["domain"]
    assert not csrf["domain"]


@pytest.mark.parametrize("path", ["/login", "/api/v1/models", "/healthz", "/admin/", "/metrics"])
def test_a_host_that_is_not_ours(db: None, settings: Any, path: str) -> None:
    settings.ALLOWED_HOSTS = ["llm.example.org"]
    assert Client(headers={"Host": "evil.example"}).get(path).status_code == 400
    assert Client(headers={"Host": "llm.example.org"}).get(path).status_code != 400
