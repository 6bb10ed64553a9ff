from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from channels.db import database_sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore

from accounts import callers, quota
from accounts.models import User
from chat import generation
from chat.generation import generations
from chat.live import live
from chat.routing import websocket_application
from chat.saving import saver
from gateway.exchange import Answer, InferenceRequest

ORIGIN = "http://localhost"


@pytest.fixture
def alice(db) -> User:
    return person("alice", "correct horse 1")


@pytest.fixture
def bob(db) -> User:
    return person("bob", "battery staple 2")


def person(name: str, password: str) -> User:
    """With a wallet: else it is opened at the first look, and SQLite in memory refuses a second writer at once."""
    user = User.objects.create_user(name, password=password)
    quota.open_wallet(user)
    return user


def session_of(user: User) -> str:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "accounts.backends.UsernameOrEmailBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session.session_key


def sse(**event) -> bytes:
    return b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"


def words(text: str) -> list[bytes]:
    """The text as the engine streams it: a delta a word."""
    parts = [word + " " for word in text.split(" ")]
    parts[-1] = parts[-1][:-1]
    return [sse(choices=[{"delta": {"content": part}}]) for part in parts]


ENDING = [
    sse(choices=[{"delta": {}, "finish_reason": "stop"}]),
    sse(
        choices=[],
        usage={"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        timings={"predicted_per_second": 33.333},
    ),
    b"data: [DONE]\n\n",
]


@dataclass
class Script:
    """What the engine does for one request: sends what is put into ``say``; None ends the stream, an exception is raised."""

    request: InferenceRequest
    chunks: asyncio.Queue = field(default_factory=asyncio.Queue)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, *chunks) -> None:
        for chunk in chunks:
            self.chunks.put_nowait(chunk)

    def finish(self, text: str) -> None:
        self.say(*words(text), *ENDING, None)

    async def stream(self):
        try:
            while (chunk := await self.chunks.get()) is not None:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.closed.set()


class FakeEngine:
    """Stands in for ``gateway.inference.infer``."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Script] = asyncio.Queue()
        self.refuse_with: Exception | None = None
        self.answers_as = ""

    async def __call__(self, request: InferenceRequest) -> Answer:
        script = Script(request)
        self.asked.put_nowait(script)
        if self.refuse_with is not None:
            raise self.refuse_with
        return Answer(200, {}, stream=script.stream(), model=self.answers_as)

    async def next(self) -> Script:
        return await asyncio.wait_for(self.asked.get(), 5)


@pytest.fixture
async def engine(monkeypatch):
    fake = FakeEngine()
    monkeypatch.setattr(generation, "infer", fake)
    monkeypatch.setattr(generation, "SAVE_EVERY", 0.05)
    callers.forget_everything()
    yield fake
    for message in list(generations._running):
        generations.stop(message)
    await asyncio.gather(*(task for _generation, task in list(generations._running.values())))
    if saver._writer:
        await saver._writer
    live.__init__()


class Tab:
    """One socket. ``events`` holds all it heard."""

    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self.communicator = communicator
        self.events: list[dict] = []

    async def say(self, **message) -> None:
        await self.communicator.send_to(text_data=json.dumps(message))

    async def hear(self, seconds: float = 5) -> dict:
        event = json.loads(await self.communicator.receive_from(seconds))
        self.events.append(event)
        return event

    async def hear_until(self, *types: str) -> dict:
        """The first event of one of these types; whatever comes before it is kept in ``events``."""
        while True:
            event = await self.hear()
            if event["type"] in types:
                return event

    async def closed_with(self) -> int:
        while True:
            output = await self.communicator.receive_output(5)
            if output["type"] == "websocket.close":
                return output["code"]

    def text_of(self, message: str, kind: str = "delta") -> str:
        return "".join(e["text"] for e in self.events if e["type"] == kind and e["message"] == message)


def communicator(session: str = "", origin: str | None = ORIGIN, host: str = "localhost", language: str = "en"):
    headers = [(b"host", host.encode()), (b"accept-language", language.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    if session:
        headers.append((b"cookie", f"sessionid={session}".encode()))
    return WebsocketCommunicator(websocket_application, "/ws/chat", headers)


@pytest.fixture
async def open_tab(engine):
    """Opens sockets that are closed at the end of the test."""
    opened: list[Tab] = []

    async def open_one(user: User | None = None, **kwargs) -> Tab:
        session = await database_sync_to_async(session_of)(user) if user else ""
        tab = Tab(communicator(session, **kwargs))
        connected, _ = await tab.communicator.connect(5)
        assert connected
        opened.append(tab)
        return tab

    yield open_one
    for tab in opened:
        if not tab.communicator.future.done():
            await tab.communicator.disconnect()
