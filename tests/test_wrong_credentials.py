"""Whatever stands where a credential stands: 401, and of the database at most one question, always the same one.

By every door that reads one (``llmplatform.lib.credentials``); what a server in front of it would refuse as well is sent to the
application itself. On the wire: ``tests/test_request_heads.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.db.backends.utils import CursorWrapper
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from accounts import callers
from llmplatform.routing import build_application
from tests.permissions.expected import SCOPES, assert_none
from tests.permissions.world import World, key_of, make_world

pytestmark = pytest.mark.django_db(transaction=True)
DOORS = [
    ("GET", "/api/v1/auth/me"),
    ("GET", "/metrics"),
    ("POST", "/api/v1/cluster/heartbeat"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/messages"),
    ("POST", "/api/v1/models/tiny/chat"),
]
# Keys are found by their hash.
QUESTION = 'WHERE "accounts_apikey"."hash" = %s ORDER BY "accounts_apikey"."id" DESC LIMIT 1'
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

KEYS = st.text(ALPHABET, min_size=43, max_size=43).map(lambda text: b"sk-" + text.encode())
TOKENS = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b"'", b'"', b"' OR 1=1 --", b"a\x00b", b"\xff\xfe", b"x" * 65536, b"sk-" + b"x" * 44, b"a.b.c", b"sk-"]
    ),
    KEYS,
)
VALUES = st.one_of(TOKENS, TOKENS.map(lambda token: b"Bearer " + token), TOKENS.map(lambda token: b"bEaReR  " + token))
HEADERS = st.one_of(
    VALUES.map(lambda value: [(b"authorization", value)]),
    TOKENS.map(lambda value: [(b"x-api-key", value)]),
    st.lists(st.tuples(st.sampled_from([b"authorization", b"x-api-key"]), VALUES), min_size=2, max_size=3),
)


@pytest.fixture
def world(settings: Any) -> Iterator[World]:
    settings.METRICS_ALLOW, settings.ALLOWED_HOSTS = [], ["localhost"]
    settings.CLUSTER_TOKEN = "a-token-for-machines"
    yield make_world()
    callers.forget_everything()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every question to the database, from whatever thread."""
    questions: list[str] = []
    execute = CursorWrapper.execute

    def noting(self: CursorWrapper, sql: str, params: Any = None) -> Any:
        questions.append(sql)
        return execute(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", noting)
    return questions


async def status(application: Any, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> int:
    """Bare ASGI: no client of HTTP would send such headers."""
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "scheme": "http",
        "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("localhost", 80), "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers],
    }  # fmt: skip
    sent: list[Any] = []
    body = iter([{"type": "http.request", "body": b"{}", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in body:
            return message
        await asyncio.Event().wait()  # a client that stays
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return int(sent[0]["status"])


@given(headers=HEADERS)
@example(headers=[(b"authorization", b"Bearer " + b"x" * 65536)])
@example(headers=[(b"authorization", b"Bearer sk-" + b"x" * 43)])
@example(headers=[(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_is_401_with_at_most_one_fixed_question(
    world: World, asked: list[str], headers: list[tuple[bytes, bytes]]
) -> None:
    application = build_application(get_asgi_application())

    async def ask() -> list[str]:
        complaints = []
        for method, path in DOORS:
            asked.clear()
            found = await status(application, method, path, headers)
            others = [sql for sql in asked if not sql.endswith(QUESTION)]
            if found != 401 or len(asked) > 1 or others:
                complaints.append(f"{method} {path} → {found}, {len(asked)} questions, {others}")
        return complaints

    assert_none(asyncio.run(ask()))


def test_what_is_remembered_is_found_by_all_of_it(world: World) -> None:
    """A key or a token that differs in one place from one that is remembered is not that one."""
    application = build_application(get_asgi_application())
    good = [key_of(world.people["user"], *SCOPES), world.tokens["user"]]

    async def ask() -> list[str]:
        complaints = []
        for token in good:
            places = sorted({3, 4, 9, 12, len(token) // 2, len(token) - 4, len(token) - 2})
            changed = [token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in places]
            for door in (DOORS[0], DOORS[3]):
                for sent, wanted in [
                    (token, 200),
                    *((other, 401) for other in (*changed, token[:-1], token + "A")),
                    (token, 200),
                ]:
                    found = await status(application, *door, [(b"authorization", b"Bearer " + sent.encode())])
                    if found != wanted:
                        complaints.append(f"{door}: {sent} → {found}")
        return complaints

    assert_none(asyncio.run(ask()))
