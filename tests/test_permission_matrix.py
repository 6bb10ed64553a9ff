"""Who may call what: every method of every path below /api/, and every inference path, as each role.

A new endpoint, or a new method of one, without a row here fails ``test_every_endpoint_has_a_row``. To add it, write one line:

    ("GET", "api/v1/things/<int:id>", OPERATOR),

the path as it stands in the URL configuration, and the least role that may call it. Whoever is below gets 401 (not logged in)
or 403; everybody else must get past: any answer but 401, 403 and 5xx, since the calls here name things that do not exist and
send an empty body. Only a path whose empty call would do something needs more: a body in ``BODIES``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.urls import URLPattern, URLResolver, get_resolver

from gateway.app import gateway_application
from gateway.endpoints import ENDPOINTS
from tests.api_callers import ROLES, client_of, token_of

ANYONE, USER, OPERATOR, ADMIN = ROLES

ROWS = [
    ("POST", "api/v1/auth/register", ANYONE),
    ("POST", "api/v1/auth/login", ANYONE),
    ("POST", "api/v1/auth/refresh", ANYONE),
    ("POST", "api/v1/auth/logout", ANYONE),
    ("GET", "api/v1/auth/me", USER),
    ("PATCH", "api/v1/auth/me", USER),
    ("POST", "api/v1/auth/password", USER),
    ("GET", "api/v1/usage", USER),
    ("GET", "api/v1/ledger", USER),
    ("POST", "api/v1/users/<int:user_id>/credits", ADMIN),
    ("GET", "api/v1/models", USER),
    ("POST", "api/v1/models", OPERATOR),
    ("GET", "api/v1/models/<str:name>", USER),
    ("PATCH", "api/v1/models/<str:name>", OPERATOR),
    ("DELETE", "api/v1/models/<str:name>", OPERATOR),
    ("POST", "api/v1/models/<str:name>/start", OPERATOR),
    ("POST", "api/v1/models/<str:name>/stop", OPERATOR),
    ("POST", "api/v1/models/<str:name>/restart", OPERATOR),
    ("GET", "api/v1/models/<str:name>/logs", OPERATOR),
    ("GET", "api/v1/cluster/stats", USER),
    ("GET", "api/v1/cluster/nodes", OPERATOR),
    ("DELETE", "api/v1/cluster/nodes/<str:node_id>", OPERATOR),
    ("POST", "api/v1/cluster/nodes/<str:node_id>/drain", OPERATOR),
    ("POST", "api/v1/cluster/nodes/<str:node_id>/resume", OPERATOR),
    ("POST", "api/v1/cluster/join", OPERATOR),
    ("GET", "api/v1/monitoring/system", OPERATOR),
    ("GET", "api/v1/monitoring/metrics", OPERATOR),
    ("GET", "api/v1/logs", OPERATOR),
    ("GET", "api/schema", ANYONE),
    ("GET", "api/docs", ANYONE),
]
# For machines with CLUSTER_TOKEN only: nobody who logs in may call these.
MACHINES = [("POST", "api/v1/cluster/heartbeat")]
BODIES: dict[str, Any] = {}

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
SAMPLES = {
    "int": "999999999",
    "str": "no-such-thing",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "path": "no/thing",
}


class Row(NamedTuple):
    method: str
    path: str
    least: str


def endpoints() -> set[tuple[str, str]]:
    """(method, path) of everything that Django answers below /api/."""
    return {
        (method, path)
        for path, pattern in _patterns(get_resolver())
        if path.startswith("api/")
        for method in _methods(pattern)
    }


def _patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for entry in resolver.url_patterns:
        path = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _patterns(entry, path)
        else:
            yield path, entry


def _methods(pattern: URLPattern) -> list[str]:
    view = getattr(pattern.callback, "cls", None) or getattr(pattern.callback, "view_class", None)
    assert view is not None, f"{pattern.pattern}: the methods of a view that is no class cannot be found out"
    return [method for method in METHODS if hasattr(view, method.lower())]


def _url(path: str) -> str:
    return "/" + re.sub(r"<(?:(\w+):)?\w+>", lambda match: SAMPLES[match.group(1) or "str"], path)


def test_every_endpoint_has_a_row() -> None:
    rows = [(method, path) for method, path, _least in ROWS] + MACHINES
    assert len(rows) == len(set(rows)), "a row is there twice"
    assert endpoints() - set(rows) == set(), "add a row for each of these"
    assert set(rows) - endpoints() == set(), "these rows are for endpoints that do not exist"


@pytest.fixture
def _names_of_static_files(settings: Any) -> None:
    """As they are in the source: pages can be drawn without collecting the files first."""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.mark.django_db
@pytest.mark.usefixtures("_names_of_static_files")
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("row", [Row(*row) for row in ROWS], ids=lambda row: f"{row.method} {row.path}")
def test_each_role(row: Row, role: str) -> None:
    client = client_of(role, raise_request_exception=False)
    answer = client.generic(row.method, _url(row.path), BODIES.get(row.path, "{}"), content_type="application/json")
    if ROLES.index(role) < ROLES.index(row.least):
        code = {401: "invalid_api_key", 403: "permission_denied"}
        assert answer.status_code == (401 if role == ANYONE else 403)
        assert answer.json()["error"]["code"] == code[answer.status_code]
    else:
        assert answer.status_code < 500
        assert answer.status_code not in {405}
        assert answer.status_code not in {401, 403} or row.least == ANYONE


@pytest.mark.django_db
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), MACHINES)
def test_people_cannot_call_what_is_for_machines(method: str, path: str, role: str) -> None:
    answer = client_of(role).generic(method, _url(path), "{}", content_type="application/json")
    assert answer.status_code == (401 if role == ANYONE else 403)


def inference_paths() -> list[tuple[str, str]]:
    """(method, path) of everything that the gateway answers: all of it is for whoever is logged in."""
    posts = {endpoint.path for endpoint in ENDPOINTS.values()}
    found = []
    for route in gateway_application.routes:
        path = str(route.path)  # type: ignore[attr-defined]
        is_post = any(path.endswith(post) for post in posts) or path.endswith("/chat")
        found.append(("POST" if is_post else "GET", re.sub(r"\{name(:path)?\}", "no-such-model", path)))
    return found


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("role", ROLES)
async def test_inference_is_for_everybody_who_is_logged_in(role: str) -> None:
    headers = {} if role == ANYONE else {"Authorization": f"Bearer {await sync_to_async(token_of)(role)}"}
    host = next(name for name in [*django_settings.ALLOWED_HOSTS, "localhost"] if "*" not in name)
    transport = httpx.ASGITransport(app=gateway_application)
    body = {
        "model": "no-such-model",
        "message": "hi",
        "messages": [{"role": "user", "content": "hi"}],
        "prompt": "hi",
        "input": "hi",
    }
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}", headers=headers) as client:
        for method, path in inference_paths():
            answer = await client.request(method, path, json=body if method == "POST" else None)
            if role == ANYONE:
                assert answer.status_code == 401, path
            else:
                assert answer.status_code in {200, 400, 404}, (path, answer.text)
