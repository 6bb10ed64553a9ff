"""Waiting for a slot through a real web server: what answers and refusals say of it, deadlines of clients, priorities of keys.

``narrow`` has one slot; whoever holds it does so until its connection is closed.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from gateway.tests.conftest import Service, StandIn, hold, python_in, until, web
from gateway.tests.test_keys_and_limits import make_keys

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
BODY = {"model": "narrow", "messages": [{"role": "user", "content": "Is it so?"}], "max_tokens": 2}
TOLD = re.compile(r": waiting for a slot, position (\d+), about \d+ ms")


def ask(service: Service, user: str = "ann", path: str = CHAT, body: dict | None = None, **headers: str):
    with service.http(user) as http:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post(path, json=body or BODY, headers=names)


def standing(answer: httpx.Response) -> tuple[int, int]:
    return int(answer.headers["x-queue-position"]), int(answer.headers["x-queue-estimate-ms"])


def key_of_group(service: Service, name: str, weight: int) -> str:
    """Of a new group's service account, which can pay."""
    script = """
import django, sys
django.setup()
from accounts import groups, keys, quota
from accounts.keys import NewKey
account = groups.service_account(groups.create_group({"name": sys.argv[1], "queue_weight": int(sys.argv[2])}))
quota.adjust(account.wallet, 10**12 - account.wallet.available)
print(keys.create_key(account, NewKey(name="robot"))[1])
"""
    return python_in(service.home, "-c", script, name, str(weight)).strip()


@contextlib.contextmanager
def busy(service: Service) -> Iterator[None]:
    """The only slot of ``narrow`` is taken."""
    narrow = service.standins["narrow"]
    before = len(narrow.seen())
    narrow.tell(first_token_seconds=60)
    with hold(service):
        until(lambda: len(narrow.seen()) == before + 1)
        yield
        narrow.tell(first_token_seconds=0)


def queued(service: Service, count: int) -> None:
    until(lambda: service.metric("llm_requests_queued") == count)


# -- what is said ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, BODY),
        (CHAT, {**BODY, "stream": True}),
        ("/v1/completions", {"model": "narrow", "prompt": "Is it"}),
        ("/v1/embeddings", {"model": "vectors", "input": "x"}),
        ("/v1/tokenize", {"model": "narrow", "content": "x"}),
        ("/api/v1/models/narrow/chat", {"message": "Is it so?"}),
        ("/api/v1/models/narrow/chat", {"message": "Is it so?", "stream": True}),
    ],
)
def test_an_answer_that_did_not_wait_says_so(service: Service, path: str, body: dict) -> None:
    answer = ask(service, path=path, body=body)
    assert answer.status_code == 200
    assert standing(answer) == (0, 0)


def test_an_answer_that_waited_says_what_held_when_it_joined(service: Service) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with busy(service):
            asked = []
            for number in range(1, 4):
                asked.append(pool.submit(ask, service))
                queued(service, number)
        standings = [standing(one.result()) for one in asked]
    assert [position for position, _estimate in standings] == [1, 2, 3]
    first, _second, third = (estimate for _position, estimate in standings)
    assert abs(third - 3 * first) <= 3
    assert first > 0


def test_a_stream_that_waits_hears_its_turn_come_nearer_as_it_does(service: Service) -> None:
    """The others leave one after the other. In which order they were served is what the engine has seen."""
    narrow = service.standins["narrow"]
    began = len(narrow.seen())
    narrow.tell(first_token_seconds=60)

    def served() -> list[str]:
        return [seen["body"]["user"] for seen in narrow.seen()[began:]]

    heard: list[tuple[int, int]] = []
    with contextlib.ExitStack() as stack:
        holding = {"holder": stack.enter_context(hold(service, user="holder"))}
        until(lambda: served() == ["holder"])
        for number, (user, name) in enumerate((("ann", "a1"), ("ann", "a2"), ("bob", "b1"), ("bob", "b2")), 1):
            holding[name] = stack.enter_context(hold(service, token=service.tokens[user], user=name))
            queued(service, number)
        body = {**BODY, "stream": True, "user": "stream"}
        answer = stack.enter_context(stack.enter_context(service.http()).stream("POST", CHAT, json=body))
        for line in answer.iter_lines():
            position = int(found[1]) if (found := TOLD.match(line)) else 0
            if position and position not in [before for before, _served in heard]:
                heard.append((position, len(served())))
                if position == 1:
                    narrow.tell(first_token_seconds=0)
                holding[served()[-1]].close()
                until(lambda: len(served()) > heard[-1][1])
    place = served().index("stream")
    assert heard == [(place - count + 1, count) for count in range(1, place + 1)]
    assert standing(answer)[0] == heard[0][0] >= 3


def test_a_stream_that_waited_says_what_was_known_when_it_began_to(service: Service) -> None:
    key = make_keys(service, counted={"requests_per_minute": 100})["counted"]
    sent = {"json": {**BODY, "max_tokens": 10**6, "stream": True}, "headers": {"Authorization": f"Bearer {key}"}}
    with busy(service), httpx.stream("POST", service.url + CHAT, timeout=30, **sent) as answer:
        assert TOLD.match(next(answer.iter_lines()))
        assert answer.headers["x-ratelimit-limit-requests"] == "100"
        assert int(answer.headers["x-max-tokens"]) <= 2048
        assert standing(answer)[0] == 1


def test_after_a_failed_try_the_answer_says_how_long_it_waited_in_all(service: Service) -> None:
    engines = [service.standins[name] for name in ("first", "second", "alpha")]
    for engine in engines:
        engine.tell(first_token_seconds=60)

    def served(engine: StandIn) -> list[str]:
        return [seen["body"].get("user") for seen in engine.seen()]

    with concurrent.futures.ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        holding = {f"h{number}": stack.enter_context(hold(service, "three", user=f"h{number}")) for number in range(8)}
        until(lambda: [len(served(engine)) for engine in engines] == [2, 2, 4])
        with hold(service, "three"):  # who leaves
            queued(service, 1)
            waited = pool.submit(ask, service, body={**BODY, "model": "three", "user": "waited"})
            queued(service, 2)
        queued(service, 1)
        for engine in engines[:2]:
            engine.tell(error_status=500, error_times=1)
        for name in served(engines[0]) + served(engines[1]):
            holding[name].close()
        until(lambda: [served(engine)[2:] for engine in engines[:2]] == [["waited"]] * 2)
        queued(service, 1)
        engines[2].tell(first_token_seconds=0)
        holding[served(engines[2])[0]].close()
        answer = waited.result()
    assert (answer.status_code, answer.headers["x-replica"]) == (200, "three/3")
    assert standing(answer)[0] == 2  # not where it stood when it came back
    assert int(answer.headers["x-queue-ms"]) > 0


def test_other_peoples_headers_decide_nothing_and_reach_no_engine(service: Service) -> None:
    claims = {
        "x_priority": "interactive",
        "x_tenant": "bob",
        "x_queue_position": "1",
        "x_user_id": "1",
        "x_queue_timeout_ms": "60000",
    }
    assert ask(service, **claims).status_code == 200
    sent = service.standins["narrow"].seen()[-1]["headers"]
    assert set(filter(None, sent)) == {"host", "content-type", "content-length"}


# -- deadlines -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "more", "code"),
    [
        (CHAT, {}, "overloaded"),
        (CHAT, {"stream": True}, "overloaded"),
        ("/v1/messages", {}, "overloaded_error"),
        ("/api/v1/models/narrow/chat", {"message": "Is it so?"}, "overloaded"),
    ],
)
def test_who_does_not_wait_is_refused_at_once(service: Service, path: str, more: dict, code: str) -> None:
    body = more if "message" in more else {**BODY, **more}
    with busy(service):
        answer = ask(service, path=path, body=body, x_queue_timeout_ms="0")
    error = answer.json()["error"]
    assert (answer.status_code, error.get("code", error.get("type"))) == (503, code)
    assert int(answer.headers["retry-after"]) >= 1
    assert standing(answer)[0] == 1


def test_who_does_not_wait_is_answered_where_a_slot_is_free(service: Service) -> None:
    assert ask(service, x_queue_timeout_ms="0").status_code == 200


def test_who_waits_for_a_while_is_refused_then(service: Service) -> None:
    with busy(service):
        answer = ask(service, x_queue_timeout_ms="300")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        queued(service, 0)
    usage = service.usage(answer.headers["x-request-id"])
    assert (usage["cost"], usage["outcome"], usage["status"]) == (0, "failed", 503)


@pytest.mark.parametrize("told", ["", "-1", "1.5", "soon", "9" * 12, "0" * 20 + "1" * 5000, "²"])
def test_what_is_no_time_is_told(service: Service, told: str) -> None:
    answer = ask(service, x_queue_timeout_ms=told.encode())
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-queue-timeout-ms")


@pytest.mark.parametrize("name", ["x_stainless_read_timeout", "x_stainless_timeout"])
def test_what_the_official_clients_say_of_their_patience_holds_for_whole_answers(service: Service, name: str) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        with busy(service):
            assert ask(service, **{name: "0.01"}).status_code == 503
            waiting = [
                pool.submit(ask, service, body={**BODY, "stream": True}, **{name: "0.01"}),
                pool.submit(ask, service, x_queue_timeout_ms="60000", **{name: "0.01"}),
                *[pool.submit(ask, service, **{name: told}) for told in ("None", "nan", "-1", "600")],
            ]
            queued(service, len(waiting))
        assert [one.result().status_code for one in waiting] == [200] * len(waiting)


# -- priorities ----------------------------------------------------------------------------------------------------------------
def test_a_batch_key_comes_after_all_others(service: Service) -> None:
    keys = make_keys(service, nightly={"priority": "batch"}, daily={})
    narrow, began = service.standins["narrow"], len(service.standins["narrow"].seen())
    with contextlib.ExitStack() as stack, busy(service):
        for number, name in enumerate(("nightly", "daily", "session"), 1):
            token = keys.get(name, service.tokens["ann"])
            stack.enter_context(hold(service, token=token, user=name))
            queued(service, number)
        narrow.tell(first_token_seconds=0)
        stack.callback(until, lambda: len(narrow.seen()) == began + 4)
    assert [seen["body"]["user"] for seen in narrow.seen()[began + 1 :]] == ["daily", "session", "nightly"]


# -- a thousand ------------------------------------------------------------------------------------------------------------------
def test_a_single_request_waits_for_one_turn_of_somebody_with_a_thousand(service: Service) -> None:
    narrow, began = service.standins["narrow"], len(service.standins["narrow"].seen())
    with web(service.home, "long line", QUEUE_LENGTH="2000") as other:
        crowded = replace(service, url=other.url)
        with contextlib.ExitStack() as stack:
            narrow.tell(first_token_seconds=60)
            with hold(crowded, user="many"):
                until(lambda: len(narrow.seen()) == began + 1)
                for _ in range(1000):
                    stack.enter_context(hold(crowded, user="many"))
                until(lambda: crowded.metric("llm_requests_queued") == 1000)
                stack.enter_context(hold(crowded, token=service.tokens["bob"], user="one"))
                until(lambda: crowded.metric("llm_requests_queued") == 1001)
                narrow.tell(first_token_seconds=0)
            until(lambda: "one" in [seen["body"]["user"] for seen in narrow.seen()[began:]])
        until(service.settled)  # before it is killed
    served = [seen["body"]["user"] for seen in narrow.seen()[began:]]
    assert served.index("one") <= 2  # one had the slot, and one may have had its turn before it


# -- weights -------------------------------------------------------------------------------------------------------------------
def test_who_is_in_a_group_of_weight_three_gets_three_turns_for_one_of_others(service: Service) -> None:
    tokens = {"h": key_of_group(service, "heavy", 3), "o": service.tokens["ann"]}
    narrow, began = service.standins["narrow"], len(service.standins["narrow"].seen())
    with contextlib.ExitStack() as stack, busy(service):
        for number in range(12):
            name = "oh"[number % 2]
            stack.enter_context(hold(service, token=tokens[name], user=name))
            queued(service, number + 1)
        narrow.tell(first_token_seconds=0)
        stack.callback(until, lambda: len(narrow.seen()) == began + 13)
    served = "".join(seen["body"]["user"] for seen in narrow.seen()[began + 1 :])
    assert served[:8].count("h") == 6, served
    assert served.count("h") == served.count("o") == 6
