"""Who may call what: every route there is, every method, as every kind of caller.

The table is in the modules ``…_rows``. A route without a row in it fails a test here. To add one, write one line: the path as it
stands in the URL configuration, the least role that may call it, and the scope a key needs. Each call is made by all callers,
about things that exist (their own, where things belong to somebody), and undone before the next one. Whoever may not gets 401
(nobody we know), 403 (not this one), or 404 (somebody else's); pages send people to the login instead of 401. Whoever may gets
anything else, since most calls here send an empty body: only not a refusal, and no server's error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from tests.permissions import ADMIN, ANYONE, NOBODY, ROLES, routes
from tests.permissions.console_rows import CONSOLE_ROWS
from tests.permissions.expected import (
    CODES,
    OWNED,
    PAGE_CALLERS,
    PASSES,
    REST_CALLERS,
    assert_none,
    browser_of,
    by_role,
    headers_of,
    outcome,
    page_outcome,
    undone,
    visit,
    wanted_of_console,
    wanted_of_page,
    whose,
)
from tests.permissions.page_rows import FORMS, PAGE_ROWS
from tests.permissions.rest_rows import INFERENCE_ROWS, REST_ROWS, WEBSOCKET_ROWS
from tests.permissions.world import World, shut_out


# -- nothing is missing ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("found", "rows"),
    [
        (routes.endpoints, {row[:2] for row in REST_ROWS}),
        (routes.inference_endpoints, {row[:2] for row in INFERENCE_ROWS}),
        (routes.page_paths, {row[0] for row in PAGE_ROWS}),
        (routes.console_paths, {row[0] for row in CONSOLE_ROWS}),
        (routes.websocket_paths, {row[0] for row in WEBSOCKET_ROWS}),
    ],
    ids=["REST", "inference", "pages", "console", "websockets"],
)
def test_every_route_has_a_row(found: Callable[[], set[Any]], rows: set[Any]) -> None:
    assert found() - rows == set(), "say for each of these who may call it: tests/permissions"
    assert rows - found() == set(), "these routes are not there any more"


def test_no_row_is_there_twice() -> None:
    for rows in ([row[:2] for row in REST_ROWS + INFERENCE_ROWS], [row[0] for row in [*PAGE_ROWS, *CONSOLE_ROWS]]):
        assert len(rows) == len(set(rows))


# -- REST --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("caller", REST_CALLERS)
def test_rest(world: World, caller: str) -> None:
    shut_out(world)
    complaints = []
    for method, path, least, scope in REST_ROWS:
        owned = any(place in path for place in OWNED)
        wanted = REST_CALLERS[caller](least, scope.split(), owned)
        for headers in headers_of(caller, world, least, scope.split()):
            with undone():
                client = Client(raise_request_exception=False, headers=headers)
                url = world.url(path, whose(caller, least))
                answer = client.generic(method, url, "{}", content_type="application/json")
            if outcome(answer) != wanted:
                complaints.append(f"{caller}: {method} {path} → {answer.status_code}, not {wanted}")
            elif wanted != PASSES and answer.json()["error"]["code"] != CODES[answer.status_code]:
                complaints.append(f"{caller}: {method} {path} → {answer.json()}")
    assert_none(complaints)


@pytest.mark.parametrize("caller", ROLES[1:])
def test_rest_by_the_browsers_session(world: World, caller: str) -> None:
    """The same as with a token; but whatever changes something needs the page's CSRF token."""
    complaints = []
    browser, bare = Client(raise_request_exception=False), Client(enforce_csrf_checks=True)
    for client in (browser, bare):
        client.force_login(world.people[caller])
    for method, path, least, scope in REST_ROWS:
        url = world.url(path, caller)
        with undone():
            answer = browser.generic(method, url, "{}", content_type="application/json")
        if outcome(answer) != by_role(caller)(least, scope.split(), False):
            complaints.append(f"{caller}: {method} {path} → {answer.status_code}")
        if method != "GET" and least != ANYONE:
            with undone():
                answer = bare.generic(method, url, "{}", content_type="application/json")
            if answer.status_code != 403:
                complaints.append(f"{caller} without a CSRF token: {method} {path} → {answer.status_code}")
    assert_none(complaints)


def test_metrics_for_an_address_that_may(world: World, settings: Any) -> None:
    settings.METRICS_ALLOW = ["127.0.0.1"]
    assert Client().get("/metrics").status_code == 200
    assert Client(REMOTE_ADDR="192.0.2.7").get("/metrics").status_code == 401


# -- pages and console -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("caller", PAGE_CALLERS)
def test_pages(world: World, caller: str) -> None:
    browser = browser_of(caller, world, raise_request_exception=False)
    shut_out(world)
    complaints = []
    for path, methods, least in PAGE_ROWS:
        for method in routes.METHODS:
            wanted = wanted_of_page(caller, path, least, takes=method in methods.split())
            answer = visit(browser, method, world.url(path, whose(caller, least)), FORMS.get(path, ""))
            if page_outcome(answer, least) not in wanted:
                complaints.append(f"{caller}: {method} {path} → {answer.status_code}, not {wanted}")
    assert_none(complaints)


@pytest.mark.parametrize("caller", PAGE_CALLERS)
def test_console(world: World, caller: str) -> None:
    browser = browser_of(caller, world, raise_request_exception=False)
    shut_out(world)
    role = PAGE_CALLERS[caller]
    complaints = []
    for path, reader, writer in CONSOLE_ROWS:
        for method, least in (("GET", reader), ("POST", writer)):
            answer = visit(browser, method, world.url(path))
            if page_outcome(answer, least) not in wanted_of_console(role, path, least):
                complaints.append(f"{caller}: {method} {path} → {answer.status_code} {answer.headers.get('Location')}")
    assert_none(complaints)


def test_the_consoles_login_refuses_users(world: World) -> None:
    assert browser_of("user", world).get("/admin/", follow=True).status_code == 403


def test_what_is_sent_to_a_page_needs_its_csrf_token(world: World) -> None:
    browser = browser_of("admin", world, enforce_csrf_checks=True)
    rows = [(path, "POST" in methods) for path, methods, _least in PAGE_ROWS]
    rows += [(path, writer != NOBODY) for path, _reader, writer in CONSOLE_ROWS]
    answers = {path: visit(browser, "POST", world.url(path, ADMIN)).status_code for path, sends in rows if sends}
    assert_none([f"{path} → {status}" for path, status in answers.items() if status != 403])
