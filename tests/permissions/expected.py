"""What each caller gets by a row of the table, and how they say who they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.test import Client

from tests.permissions import ADMIN, ANYONE, MACHINE, OPERATOR, OPERATOR_OR_MACHINE, ROLES, USER
from tests.permissions.page_rows import SINGLE_SIGN_ON
from tests.permissions.world import CLUSTER_TOKEN, World, bearer, key_of

PASSES, LOGIN = "passes", "login"
SCOPES = ("inference", "models:read", "models:write", "usage:read", "admin")
OWNED = ("<int:key_id>", "<uuid:conversation_id>")  # what belongs to a person, by its place in a path
CODES = {401: "invalid_api_key", 403: "permission_denied", 404: "not_found"}


@contextmanager
def undone() -> Iterator[None]:
    """What happens meanwhile leaves nothing in the database."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def outcome(answer: Any) -> str | int:
    if answer.status_code == 302 and ("login" in answer["Location"] or answer["Location"] == "/admin/"):
        return LOGIN
    refused = answer.status_code in {401, 403, 404, 405} or answer.status_code >= 500
    return answer.status_code if refused else PASSES


def reaches(role: str, least: str) -> bool:
    if least == OPERATOR_OR_MACHINE:
        least = OPERATOR
    return least in ROLES and ROLES.index(role) >= ROLES.index(least)


def assert_none(complaints: list[str]) -> None:
    assert not complaints, f"{len(complaints)} cells are not as the table has them:\n" + "\n".join(complaints)


# -- REST and inference --
# What each caller is, and what they get by a row: (least, scopes, belongs to somebody).
Expect = Callable[[str, list[str], bool], str | int]


def by_role(role: str) -> Expect:
    return lambda least, _scopes, _owned: PASSES if reaches(role, least) else 403


def nobody_we_know(least: str, _scopes: list[str], _owned: bool) -> str | int:
    return PASSES if least == ANYONE else 401


def another_user(least: str, _scopes: list[str], owned: bool) -> str | int:
    return (404 if owned else PASSES) if reaches(USER, least) else 403


def key_of_another_user(least: str, scopes: list[str], owned: bool) -> str | int:
    return another_user(least, scopes, owned) if scopes or least == ANYONE else 403


def key_with_the_scope(least: str, scopes: list[str], _owned: bool) -> str | int:
    return PASSES if scopes or least == ANYONE else 403


def key_without_the_scope(least: str, _scopes: list[str], _owned: bool) -> str | int:
    return PASSES if least == ANYONE else 403


def machine(least: str, _scopes: list[str], _owned: bool) -> str | int:
    return PASSES if least in {ANYONE, MACHINE, OPERATOR_OR_MACHINE} else 401


REST_CALLERS: dict[str, Expect] = {
    "anyone": nobody_we_know,
    "user": by_role(USER),
    "operator": by_role(OPERATOR),
    "admin": by_role(ADMIN),
    "another user": another_user,
    "key with the scope": key_with_the_scope,
    "key without the scope": key_without_the_scope,
    "key of another user": key_of_another_user,
    "waiting": nobody_we_know,
    "blocked": nobody_we_know,
    "machine": machine,
}


def owner_of_key(least: str) -> str:
    """Whose role is just enough."""
    return least if least in ROLES[1:] else {ANYONE: USER}.get(least, OPERATOR)


def headers_of(caller: str, world: World, least: str, scopes: list[str]) -> list[dict[str, str]]:
    """The ways in which this caller may say who they are for this row."""
    owner = world.people[owner_of_key(least)]
    match caller:
        case "anyone":
            return [{}]
        case "machine":
            return [bearer(CLUSTER_TOKEN)]
        case "key with the scope":
            return [bearer(key_of(owner, scope)) for scope in scopes] or [bearer(key_of(owner, *SCOPES))]
        case "key without the scope" if least == ANYONE:
            return [bearer(key_of(owner, scope)) for scope in SCOPES]
        case "key without the scope":
            return [bearer(key_of(owner, *(scope for scope in SCOPES if scope not in scopes)))]
        case "key of another user":
            return [bearer(key_of(world.people["another user"], *SCOPES))]
        case "waiting" | "blocked":
            return [bearer(world.tokens[caller]), bearer(key_of(world.people[caller], *SCOPES))]
        case _:
            return [bearer(world.tokens[caller])]


def whose(caller: str, least: str) -> str:
    """Whom the things belong to that this caller asks for."""
    if caller.startswith("key with"):
        return owner_of_key(least)
    return caller if caller in ROLES else USER


# -- pages --
# Who each caller is to a page: keys are none, and who waits or is blocked has lost the session.
PAGE_CALLERS = {
    **{role: role for role in ROLES},
    "another user": USER,
    "key": ANYONE,
    "waiting": ANYONE,
    "blocked": ANYONE,
}


def browser_of(caller: str, world: World, **options: Any) -> Client:
    if caller == "key":
        return Client(headers=bearer(key_of(world.people["admin"], *SCOPES)), **options)
    browser = Client(**options)
    if caller != ANYONE:
        browser.force_login(world.people[caller])
    return browser


def visit(browser: Client, method: str, url: str, form: str = "") -> Any:
    """With the cookies it came with, whatever earlier answers said of them."""
    before = browser.cookies.copy()
    try:
        with undone():
            return browser.generic(method, url, form, content_type="application/x-www-form-urlencoded")
    finally:
        browser.cookies = before


def page_outcome(answer: Any, least: str) -> str | int:
    found = outcome(answer)
    return PASSES if least == ANYONE and found == LOGIN else found  # logging out leads there too


def wanted_of_page(caller: str, path: str, least: str, *, takes: bool) -> set[str | int]:
    role = PAGE_CALLERS[caller]
    if path == "login" and role != ANYONE:
        return {PASSES}  # who is logged in is sent on, whatever the method
    if caller == "another user" and any(place in path for place in OWNED):
        return {404} if takes else {404, 405}
    wanted = PASSES if reaches(role, least) else LOGIN
    if takes and path in SINGLE_SIGN_ON and wanted == PASSES:
        return {404}
    if takes:
        return {wanted}
    return {405} if wanted == PASSES else {405, wanted}


# What is no page of the console, and rows of tables that have no page outside of it.
LEADS_NOWHERE = {"admin/(?P<url>.*)$", "admin/r/<path:content_type_id>/<path:object_id>/"}


def wanted_of_console(role: str, path: str, least: str) -> set[str | int]:
    """People below operators are sent to the console's login, which refuses them."""
    if path == "admin/login/" and role == USER:
        return {403}
    if reaches(role, least):
        return {404 if path in LEADS_NOWHERE else PASSES}
    return {403, 405} if reaches(role, OPERATOR) else {LOGIN, 403, 405}
