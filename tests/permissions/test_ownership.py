"""What belongs to one person is not there for another: by id 404, in lists nothing, and nothing of it changes.

Ann has one of everything, and each of her texts holds ``SECRET``. Bob asks for it by every address that takes an id, with every
method, and reads every list. A new parameter of an address, of a query or of a websocket message without a row here fails.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, get_args
from urllib.parse import urlencode

import httpx
import pytest
from channels.testing import WebsocketCommunicator
from django.core import serializers
from django.test import Client
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator

from accounts import credits, groups, invites, keys, quota, selectors
from accounts.models import ApiKey, UsageHour, User
from chat import client_messages
from chat.models import Conversation, Message
from chat.routing import websocket_application
from llmplatform.routing import build_application
from tests.permissions import routes
from tests.permissions.expected import SCOPES, assert_none
from tests.permissions.world import World, bearer, conversation_of, key_of, person

SECRET = "zq-canary-7f3a"
PART = "canary-7f3"  # finds it; told back, it is not it
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>|\(\?P<(\w+)>[^)]*\)")


@dataclasses.dataclass
class Ann:
    user: User
    key: ApiKey
    conversation: Conversation
    invite: int

    @property
    def message(self) -> Message:
        return self.conversation.messages.get(role=Message.Role.ASSISTANT)


@pytest.fixture
def ann(world: World) -> Ann:
    user = person(SECRET, first_name=SECRET, last_name=SECRET)
    group = groups.create_group({"name": f"group {SECRET}", "description": SECRET})
    groups.move(user, group)
    key, _secret = keys.create_key(user, keys.NewKey(name=SECRET, allowed_models=[SECRET], scopes=list(SCOPES)))
    quota.top_up(user.wallet, 10**9, f"note {SECRET}")
    credits.redeem(user, credits.make_codes(SECRET, 1, 250)[1][0])
    figures = quota.UsageFigures(
        model_name=SECRET, endpoint="chat.completions", status=200, outcome="completed", created_at=timezone.now(),
        prompt_tokens=10, completion_tokens=5, first_token_ms=300,
    )  # fmt: skip
    quota.settle(quota.Settlement("settled", user.wallet.pk, figures, key_id=key.pk))
    invite = invites.make_invite(group=group, note=SECRET)[0]
    return Ann(user, key, conversation_of(user, SECRET), invite.pk)


def everything_of(ann: Ann) -> str:
    rows: list[Any] = [ann.user, ann.user.wallet, ann.key, ann.conversation]
    rows += [*ann.conversation.messages.all(), *ann.user.wallet.entries.all(), *ann.user.usage.all()]
    rows += UsageHour.objects.filter(user=ann.user)
    for row in rows:
        row.refresh_from_db()
    return serializers.serialize("json", [*rows, *ann.user.keys.all()])


# -- who asks ----------------------------------------------------------------------------------------------------------
class Bob:
    """Another person with one kind of credentials; ``reads`` are the addresses these are good for."""

    def __init__(self, *, session: User | None = None, token: str = "") -> None:
        self.client = Client(raise_request_exception=False, headers=bearer(token) if token else {})
        self.has_session = session is not None
        if session is not None:
            self.client.force_login(session)

    def knows(self, path: str) -> bool:
        """Pages are for sessions only."""
        return self.has_session or is_rest(path)

    def ask(self, method: str, url: str) -> Any:
        if is_rest(url.lstrip("/")):
            return self.client.generic(method, url, "{}", content_type="application/json")
        return self.client.generic(method, url, "title=New", content_type="application/x-www-form-urlencoded")


def is_rest(path: str) -> bool:
    return path.startswith("api/") or path == "metrics"


BOBS: dict[str, Callable[[World], Bob]] = {
    "token": lambda world: Bob(token=world.tokens["another user"]),
    "key": lambda world: Bob(token=key_of(world.people["another user"], *SCOPES)),
    "session": lambda world: Bob(session=world.people["another user"]),
    "an operator's token": lambda world: Bob(token=world.tokens["operator"]),
    "an operator's session": lambda world: Bob(session=world.people["operator"]),
}
USERS = [name for name in BOBS if "operator" not in name]


# -- by id -------------------------------------------------------------------------------------------------------------
# Parameters of addresses: what Ann has of it. Names of models and machines are nobody's own.
OWNED: dict[str, Callable[[Ann], object]] = {
    "key_id": lambda ann: ann.key.pk,
    "conversation_id": lambda ann: ann.conversation.pk,
}
# Of these, people below administrators get the same answer whether they exist or not.
FOR_ADMINISTRATORS: dict[str, Callable[[Ann], object]] = {
    "user_id": lambda ann: ann.user.pk,
    "group_id": lambda ann: ann.user.group_id,
    "invite_id": lambda ann: ann.invite,
}
NOBODYS_OWN = {"name", "node_id", "download_id", "upload_id"}
CONSOLE = {"object_id", "pk", "id", "content_type_id", "app_label", "url"}  # nobody below operators: test_matrix.py


def django_paths() -> set[str]:
    return routes.page_paths() | {path for _method, path in routes.endpoints()}


def parameters(path: str) -> set[str]:
    return {one or other for one, other in PARAMETER.findall(path)}


def test_every_parameter_of_an_address_has_a_row() -> None:
    found = {name for path in django_paths() for name in parameters(path)}
    found |= {name for _method, path in routes.inference_endpoints() for name in parameters(path)}
    assert found - set(OWNED) - set(FOR_ADMINISTRATORS) - NOBODYS_OWN == set(), "whose is what it names?"
    assert {name for path in routes.console_paths() for name in parameters(path)} == CONSOLE
    assert set(OWNED) | set(FOR_ADMINISTRATORS) | NOBODYS_OWN == found, "these are not there any more"


def filled(path: str, ids: dict[str, object]) -> str:
    return "/" + PARAMETER.sub(lambda match: str(ids[match[1] or match[2]]), path)


@pytest.mark.parametrize("bob", BOBS)
def test_by_id(world: World, ann: Ann, bob: str) -> None:
    asking, before = BOBS[bob](world), everything_of(ann)
    ids = {name: of(ann) for name, of in OWNED.items()}
    complaints = []
    for path in sorted(path for path in django_paths() if parameters(path) & set(OWNED) and asking.knows(path)):
        answers = {method: asking.ask(method, filled(path, ids)) for method in routes.METHODS}
        statuses = {method: answer.status_code for method, answer in answers.items()}
        if 404 not in statuses.values() or not set(statuses.values()) <= {404, 405}:
            complaints.append(f"{bob}: {path} → {statuses}")
        complaints += [f"{path} shows it" for answer in answers.values() if SECRET in answer.content.decode()]
    assert_none(complaints)
    assert everything_of(ann) == before


@pytest.mark.parametrize("bob", USERS)
def test_what_is_for_administrators_is_refused_the_same_whether_it_exists_or_not(
    world: World, ann: Ann, bob: str
) -> None:
    asking, before = BOBS[bob](world), everything_of(ann)
    there = {name: of(ann) for name, of in FOR_ADMINISTRATORS.items()}
    nowhere = dict.fromkeys(there, 999_999_999)
    for path in sorted(path for path in django_paths() if parameters(path) & set(there)):
        for method in routes.METHODS:
            one, other = (asking.ask(method, filled(path, ids)) for ids in (there, nowhere))
            assert (one.status_code, one.content) == (other.status_code, other.content), f"{method} {path}"
            assert one.status_code == 403
    assert everything_of(ann) == before


def test_not_even_administrators_read_conversations(world: World, ann: Ann) -> None:
    asking = Bob(session=world.people["admin"])
    for path in (path for path in django_paths() if "conversation_id" in path):
        for method in ("GET", "POST"):
            assert asking.ask(method, filled(path, {"conversation_id": ann.conversation.pk})).status_code in {404, 405}
    assert ann.conversation.messages.count() == 2


# -- in lists ----------------------------------------------------------------------------------------------------------
# Parameters of queries that could name what is somebody else's, with what Bob tries.
NAMING: dict[str, Callable[[Ann], list[object]]] = {
    "user": lambda ann: ["*", PART, SECRET, ann.user.pk],
    "key": lambda ann: [ann.key.pk],
    "group": lambda ann: [f"group {SECRET}", PART, ann.user.group_id],
    "group_id": lambda ann: [ann.user.group_id],
    "address": lambda _ann: ["127.0.0.1"],
    "model": lambda ann: [SECRET],
    "by": lambda _ann: ["user", "key", "model", "group"],
    "q": lambda _ann: [PART, "%"],
    "name": lambda _ann: [PART],
    "who": lambda _ann: [PART, SECRET],
    "id": lambda ann: [ann.user.pk],
    "after": lambda _ann: ["a", "zq"],
    "before": lambda _ann: ["a"],
    "cursor": lambda ann: [str(selectors.Place(timezone.now() + timedelta(days=1), 2**40))],
}
OF_NOBODY = {
    "action", "area", "ended", "follow", "format", "kind", "level", "limit", "lines", "replica", "since", "sort", "source",
    "timezone", "type", "until", "wait", "waiting",
}  # fmt: skip
# Pages have no description: what they read from a query.
QUERIES_OF_PAGES = {"chat/list": ["q", "before"], "chat/models": ["model"]}


def queries() -> dict[str, list[str]]:
    """Of every address without an id, by GET: its parameters."""
    described = SchemaGenerator().get_schema(public=True)["paths"]
    paths = {path: QUERIES_OF_PAGES.get(path, []) for path in django_paths() if not parameters(path)}
    for path in paths:
        found = described.get(f"/{path}", {}).get("get", {}).get("parameters", [])
        paths[path] = paths[path] + [one["name"] for one in found if one["in"] == "query"]
    return paths


def test_every_parameter_of_a_query_has_a_row() -> None:
    found = {name for names in queries().values() for name in names}
    assert found - set(NAMING) - OF_NOBODY == set(), "could it name what is somebody else's?"


@pytest.mark.parametrize("bob", USERS)
def test_in_lists(world: World, ann: Ann, bob: str) -> None:
    """Every address that can be read, plain and with each query that may name something of Ann's."""
    asking = BOBS[bob](world)
    complaints, read = [], 0
    for path, names in queries().items():
        if path in {"logout", "language"} or not asking.knows(path):
            continue
        tried = [{}, *({name: value} for name in names if name in NAMING for value in NAMING[name](ann))]
        tried += [{**one, "format": "csv"} for one in tried if "format" in names]
        for query in tried:
            answer = asking.client.get(f"/{path}", query)
            read += answer.status_code == 200
            text = b"".join(answer).decode() if answer.streaming else answer.content.decode()
            if SECRET in text.replace(urlencode(query), ""):
                complaints.append(f"{bob}: {path} with {query} shows it")
    assert_none(complaints)
    assert read > 10


def test_what_is_looked_for_can_be_found(world: World, ann: Ann) -> None:
    """So that a list without it proves something: Ann herself and administrators do see it."""
    session, token = Bob(session=ann.user), Bob(token=world.tokens["admin"])
    for path in ("chat/", "chat/list", "account", "account/keys", "account/balance", "account/usage", "api/v1/keys"):
        assert SECRET in session.client.get(f"/{path}").content.decode(), path
    for path in (
        "api/v1/keys?user=*",
        "api/v1/usage",
        "api/v1/ledger",
        "api/v1/users",
        "api/v1/groups",
        "api/v1/invites",
    ):
        assert SECRET in token.client.get(f"/{path}").content.decode(), path


# -- on the inference path and the websocket ---------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("bob", ["another user", "operator", "admin"])
def test_a_conversation_is_not_continued_by_somebody_else(world: World, ann: Ann, bob: str) -> None:
    async def ask(headers: dict[str, str], conversation: uuid.UUID) -> httpx.Response:
        transport = httpx.ASGITransport(app=build_application(None))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            body = {"message": "What did she say?", "conversation": str(conversation)}
            return await client.post("/api/v1/models/tiny/chat", json=body)

    for token in (world.tokens[bob], key_of(world.people[bob], *SCOPES)):
        hers, nobodys = (asyncio.run(ask(bearer(token), one)) for one in (ann.conversation.pk, uuid.uuid4()))
        assert (hers.status_code, hers.json()) == (nobodys.status_code, nobodys.json())
        assert hers.json()["error"]["details"].keys() == {"conversation"}
    assert ann.conversation.messages.count() == 2


# Messages of the websocket, with what Ann has of it.
SAID: dict[type, Callable[[Ann], dict[str, Any]]] = {
    client_messages.Send: lambda ann: {"conversation": ann.conversation.pk, "model": "tiny", "content": "x"},
    client_messages.Stop: lambda ann: {"message": ann.message.pk},
    client_messages.Regenerate: lambda ann: {"message": ann.message.pk},
    client_messages.Resume: lambda ann: {"message": ann.message.pk, "after": 0},
    client_messages.Watch: lambda ann: {"conversation": ann.conversation.pk},
}


def test_every_message_of_the_websocket_has_a_row() -> None:
    assert set(get_args(client_messages.ClientMessage)) - {client_messages.Authenticate} == set(SAID)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("bob", ["another user", "operator", "admin"])
@pytest.mark.parametrize("kind", SAID, ids=lambda kind: kind.__name__)
def test_on_the_websocket(world: World, ann: Ann, kind: type, bob: str) -> None:
    message = {"type": kind.__name__.lower(), **SAID[kind](ann)}

    async def said(token: str) -> dict[str, Any]:
        socket = WebsocketCommunicator(websocket_application, "/ws/chat", [(b"host", b"localhost")])
        await socket.connect(5)
        for text in ({"type": "auth", "token": token}, message):
            await socket.send_to(text_data=json.dumps(text, default=str))
        output = await socket.receive_output(5)
        await socket.disconnect(timeout=10)
        return json.loads(output["text"])

    for token in (world.tokens[bob], key_of(world.people[bob], *SCOPES)):
        answer = asyncio.run(said(token))
        assert answer["code"] in {"not_found", "conversation_not_found"}, answer
        assert SECRET not in json.dumps(answer)
