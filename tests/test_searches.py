"""What is typed into a search is text: ``%`` and ``_`` stand for themselves, as does everything else."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib import admin
from django.test import Client

from accounts.models import ApiKey, Invite
from tests.permissions.expected import browser_of
from tests.permissions.world import World, bearer, conversation_of, make_world, person

pytestmark = pytest.mark.django_db
# What a pattern or an escape would make of them; none stands in any text of the world below but random ones.
STRANGE = ["%", "_", "\\", "' OR 1=1 --"]


@pytest.fixture
def world() -> World:
    return make_world()


def found_in_console(browser: Client, table: type, text: str) -> list[Any]:
    """But for invites and keys in whose random name the text does stand."""
    url = f"/admin/{table._meta.app_label}/{table._meta.model_name}/?{urlencode({'q': text})}"
    rows = browser.get(url).context["cl"].queryset
    return [row for row in rows if not (isinstance(row, ApiKey | Invite) and text in str(row))]


def test_in_the_console(world: World) -> None:
    browser = browser_of("admin", world)
    searched = [table for table, page in admin.site._registry.items() if page.search_fields]
    assert len(searched) >= 10
    found = {(table.__name__, text): found_in_console(browser, table, text) for table in searched for text in STRANGE}
    assert {where: rows for where, rows in found.items() if rows} == {}
    odd = person("50%_off")
    assert found_in_console(browser, type(odd), "50%_o") == [odd]


def test_people_by_the_api(world: World) -> None:
    client = Client(headers=bearer(world.tokens["admin"]))

    def names(text: str) -> list[str]:
        return [one["username"] for one in client.get("/api/v1/users", {"q": text}).json()["results"]]

    assert {text: names(text) for text in STRANGE if names(text)} == {}
    person("50%_off")
    assert names("50%_o") == ["50%_off"]


def test_the_audit_log(world: World) -> None:
    client = Client(headers=bearer(world.tokens["admin"]))
    for text in STRANGE:
        assert client.get("/api/v1/audit", {"name": text}).json()["results"] == [], text
    assert client.get("/api/v1/audit", {"name": "lab"}).json()["results"]


def test_conversations(world: World) -> None:
    browser = browser_of("user", world)
    odd = conversation_of(world.people["user"], "50%_off")

    def count(text: str) -> int:
        return browser.get("/chat/list", {"q": text}).content.decode().count("/chat/")

    assert (count("Hello"), count("50%_o")) == (1, 1)
    assert str(odd.pk) in browser.get("/chat/list", {"q": "%_"}).content.decode()
    odd.delete()
    assert {text: count(text) for text in STRANGE if count(text)} == {}
