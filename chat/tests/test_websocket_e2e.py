"""The websocket through a real Daphne, gateway and supervisor; a stand-in for the engine where it has to misbehave."""

from __future__ import annotations

import json
import random
import urllib.request
import uuid
from contextlib import contextmanager

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests import standin
from tests.running_service import running, wait_for

pytestmark = pytest.mark.e2e

ANSWER = " ".join(f"wörd{n} 很简单 🙂" for n in range(80))


class Socket:
    def __init__(self, connection) -> None:
        self.connection = connection
        self.events: list[dict] = []

    def say(self, **message) -> None:
        self.connection.send(json.dumps(message))

    def hear(self, seconds: float = 20) -> dict:
        event = json.loads(self.connection.recv(timeout=seconds))
        self.events.append(event)
        return event

    def hear_until(self, *types: str) -> dict:
        while True:
            event = self.hear()
            if event["type"] in types:
                return event

    def text(self) -> str:
        return "".join(event["text"] for event in self.events if event["type"] == "delta")

    def ask(self, content: str = "What is a cat?", **more) -> dict:
        self.say(type="send", model=more.pop("model", "smollm2-135m-instruct"), content=content, client_id="c", **more)
        return self.hear_until("accepted")


@contextmanager
def socket_of(service, token: str = ""):
    with connect(f"ws://127.0.0.1:{service.port}/ws/chat", proxy=None) as connection:
        socket = Socket(connection)
        socket.say(type="auth", token=token or service.token())
        yield socket


@pytest.fixture(scope="module")
def engine_program(tmp_path_factory):
    return standin.write_executable(tmp_path_factory.mktemp("engine") / "llama-server")


@pytest.fixture(scope="module")
def slow_service(tmp_path_factory, engine_program):
    home = tmp_path_factory.mktemp("chat-service")
    with running(home, LLAMA_CPP_PATH=str(engine_program), DEFAULT_TOKENS="1000000") as service:
        wait_for(service.model_is_ready, "a model that is ready", 120)
        yield service


@pytest.fixture
def service_with(slow_service, engine_program):
    """The service, its engine told what to do."""

    def told(**switches):
        standin.set_switches(engine_program, **{"answer": ANSWER, "token_seconds": 0.02, **switches})
        return slow_service

    yield told
    standin.set_switches(engine_program)
    wait_for(slow_service.model_is_ready, "a model that is ready again", 60)


def requests_at_engine(service) -> list[dict]:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.model_port}/standin", timeout=5) as answer:
        return json.load(answer)["seen"]


def messages_about(conversation: str, message: str) -> list[dict]:
    return [
        {"type": "send", "conversation": conversation, "model": "smollm2-135m-instruct", "content": "x"},
        {"type": "stop", "message": message},
        {"type": "regenerate", "message": message},
        {"type": "resume", "message": message, "after": 0},
        {"type": "watch", "conversation": conversation},
    ]


def test_five_cuts_at_random_points_lose_nothing(service_with):
    service = service_with()
    token = service.token()  # a login takes longer than many a piece of the answer
    chance = random.Random(7)
    text, seq, message = "", 0, ""
    for _cut in range(5):
        with socket_of(service, token) as socket:
            if message:
                socket.say(type="resume", message=message, after=seq)
            else:
                message = socket.ask()["message"]
            for _ in range(chance.randint(1, 12)):
                event = socket.hear_until("delta")
                text, seq = text + event["text"], event["seq"]
    with socket_of(service, token) as socket:
        socket.say(type="resume", message=message, after=seq)
        done = socket.hear_until("done")
        assert (text + socket.text()).encode() == ANSWER.encode()
    assert done["state"] == "done"
    assert done["usage"]["completion_tokens"] > 0
    assert done["timings"]["tokens_per_second"] > 0


def test_stop_ends_the_work_of_the_engine(service_with):
    service = service_with(token_seconds=0.1)
    with socket_of(service) as socket:
        message = socket.ask()["message"]
        socket.hear_until("delta")
        socket.say(type="stop", message=message)
        done = socket.hear_until("done")
    assert done["state"] == "stopped"
    last = wait_for(
        lambda: next((seen for seen in requests_at_engine(service)[-1:] if seen["state"] == "closed"), None),
        "the engine to stop",
    )
    assert last["deltas"] < 100


def test_regenerate_and_the_next_question(service_with):
    service = service_with(answer="first answer", token_seconds=0)
    with socket_of(service) as socket:
        first = socket.ask("the question")
        socket.hear_until("done")
        service_with(answer="second answer", token_seconds=0)
        socket.say(type="regenerate", message=first["message"], client_id="r")
        again = socket.hear_until("accepted")
        assert again["question"] == first["question"]
        assert socket.hear_until("done")["html"] == "<p>second answer</p>\n"
        socket.ask("the next", conversation=first["conversation"])
        socket.hear_until("done")
    sent = [message["content"] for message in requests_at_engine(service)[-1]["body"]["messages"]]
    assert sent == ["the question", "second answer", "the next"]


def test_two_tabs_see_the_same(service_with):
    service = service_with(token_seconds=0.01)
    with socket_of(service) as one, socket_of(service) as two:
        accepted = one.ask()
        two.say(type="watch", conversation=accepted["conversation"])
        assert two.hear_until("watching")["running"] == [accepted["message"]]
        ends = [socket.hear_until("done") for socket in (one, two)]
        assert ends[0]["html"] == ends[1]["html"]
        assert one.text() == ANSWER
        first = two.events[1]  # the HTML so far, or the text from the beginning
        assert ANSWER.endswith(two.text()) or first["type"] == "render"


def test_another_user_gets_nothing(service_with):
    service = service_with()
    body = {"username": f"bob{uuid.uuid4().hex[:8]}", "password": "a long enough phrase 7", "email": ""}
    registered = httpx.post(f"{service.base_url}/api/v1/auth/register", json=body, timeout=20)
    assert registered.status_code == 201, registered.text
    with socket_of(service) as hers, socket_of(service, registered.json()["access"]) as his:
        accepted = hers.ask("a secret")
        hers.hear_until("delta")
        for message_id in (accepted["message"], accepted["question"]):
            for message in messages_about(accepted["conversation"], message_id):
                his.say(**message)
                assert his.hear()["code"] == "not_found"
        assert hers.hear_until("done")["state"] == "done"
        assert hers.text() == ANSWER
        assert {event["type"] for event in his.events} == {"error"}


def test_without_a_login_the_socket_says_so_and_closes(service_with):
    service = service_with()
    with connect(f"ws://127.0.0.1:{service.port}/ws/chat", proxy=None) as connection:
        connection.send('{"type": "watch", "conversation": "x"}')
        assert json.loads(connection.recv(timeout=10))["type"] == "error"
        connection.send(json.dumps({"type": "watch", "conversation": str(uuid.uuid4())}))
        assert json.loads(connection.recv(timeout=10))["code"] == "invalid_api_key"
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=10)
        assert closed.value.rcvd.code == 4401


def ready_since(service) -> str:
    """Since when the model's one replica is ready, or nothing."""
    with service.client() as client:
        [model] = client.get("/api/v1/models").json()["models"]
    return next((row["since"] for row in model["running"] if row["state"] == "ready"), "")


def test_an_engine_that_dies_in_the_middle(service_with):
    service = service_with(crash_after_deltas=20)
    first = ready_since(service)
    with socket_of(service) as socket:
        accepted = socket.ask()
        error = socket.hear_until("error", "done")
        assert (error["type"], error["code"], error["retry"]) == ("error", "upstream_error", True)
        assert socket.text()
        assert ANSWER.startswith(socket.text())
        service_with(answer="it works again", token_seconds=0)
        # Ready alone may still be said of the dead one.
        wait_for(lambda: ready_since(service) not in ("", first), "the model's next engine", 60)
        socket.say(type="regenerate", message=accepted["message"])
        assert socket.hear_until("done", "error")["type"] == "done"


def test_an_engine_that_is_killed_once_costs_a_pause_only(service_with):
    service = service_with()
    with socket_of(service) as socket:
        socket.ask()
        while len(socket.text()) < 100:
            socket.hear()
        [engine] = service.engines()
        engine.kill()
        done = socket.hear_until("done", "error")
        assert done["type"] == "done", done
        assert socket.text() == ANSWER


def test_a_killed_web_server_leaves_an_interrupted_message(service_with):
    service = service_with(token_seconds=0.2)
    with socket_of(service) as socket:
        message = socket.ask()["message"]
        while len(socket.text()) < 100:  # some of it is stored by then, which happens once a second
            socket.hear()
        web = next(process for process in service.processes() if process.pid == service.pids()["web"])
        web.kill()
    wait_for(lambda: service.is_ready() and service.pids()["web"] != web.pid, "the web server's return", 60)
    with socket_of(service) as socket:
        socket.say(type="resume", message=message, after=0)
        error = socket.hear_until("error", "done")
        assert (error["code"], error["retry"]) == ("interrupted", True)
        assert error["message"]
        assert socket.text()
        assert ANSWER.startswith(socket.text())


def test_a_real_model_answers(service):
    with socket_of(service) as socket:
        socket.ask("Say hello.", params={"max_tokens": 40, "temperature": 0})
        done = socket.hear_until("done", "error")
        assert done["type"] == "done", done
        assert socket.text().strip()
        assert done["usage"]["completion_tokens"] > 0
        assert done["timings"]["tokens_per_second"] > 0
        kinds = [event["type"] for event in socket.events]
        assert kinds.index("started") < kinds.index("delta") < kinds.index("render")
