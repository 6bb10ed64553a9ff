"""Requests for a model that is loaded when asked for, while it is away, on its way out, or not to be had."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator

import pytest

from gateway.tests.conftest import Service, until
from gateway.tests.test_inference import MESSAGES, ask

pytestmark = pytest.mark.e2e
MODEL = "(SELECT id FROM models_app_modelconfig WHERE name = 'coming')"
WAITING = f"SELECT * FROM models_app_demand WHERE model_id = {MODEL} AND waiting > 0"


@pytest.fixture
def away(service: Service) -> Iterator[Service]:
    """The model ``coming`` is on demand, and nothing of it runs."""
    service.change(f"UPDATE models_app_modelconfig SET policy = 'on_demand' WHERE id = {MODEL}")
    replica(service, "stopped", None)
    until(lambda: state(service) == "stopped")
    yield service
    service.change(f"UPDATE models_app_modelconfig SET policy = 'always' WHERE id = {MODEL}")
    replica(service, "loading", None)
    until(lambda: state(service) == "loading")


def replica(service: Service, state: str, port: int | None) -> None:
    service.change(f"UPDATE models_app_replica SET state = ?, port = ? WHERE model_id = {MODEL}", state, port)


def another_replica(service: Service, port: int) -> None:
    service.change(
        f"UPDATE models_app_replica SET id = id + 1000, state = 'ready', port = ? WHERE model_id = {MODEL}", port
    )


def state(service: Service) -> str:
    with service.http() as client:
        return client.get("/v1/models/coming").json()["state"]


def test_a_stream_is_told_that_it_waits_and_then_answered(away: Service) -> None:
    with away.http() as client, client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
        lines = response.iter_lines()
        assert next(lines).startswith(": loading the model, position 1, about ")
        assert len(away.rows(WAITING)) == 1
        replica(away, "ready", away.standins["alpha"].port)
        rest = [line for line in lines if line.startswith("data: ")]
    assert response.headers["content-type"] == "text/event-stream"
    assert json.loads(rest[0][6:])["model"] == "coming"
    assert rest[-1] == "data: [DONE]"
    until(lambda: not away.rows(WAITING))


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("/v1/chat/completions", '"code": "model_not_available"'),
        ("/v1/messages", '"type": "overloaded_error"'),
        ("/api/v1/models/coming/chat", '"code": "model_not_available"'),
    ],
)
def test_a_stream_that_waits_in_vain_ends_with_an_error(away: Service, path: str, ending: str) -> None:
    sent = {"message": "hi", "stream": True} if path.endswith("coming/chat") else body(stream=True, max_tokens=9)
    with away.http() as client, client.stream("POST", path, json=sent) as response:
        lines = response.iter_lines()
        assert next(lines).startswith(": loading the model")
        replica(away, "failed", None)
        rest = "\n".join(lines)
    assert ending in rest


def test_one_that_waits_for_a_moment_only_is_told_nothing(away: Service) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, away, "coming", stream=True)
        until(lambda: away.rows(WAITING))
        replica(away, "ready", away.standins["alpha"].port)
        away.knock()
        answer = asked.result()
    assert answer.headers["x-replica"] == "coming/1"
    assert answer.text.startswith("data: ")


def test_one_whose_replica_goes_in_that_moment_is_answered_by_the_next(away: Service) -> None:
    """The gateway has not seen yet that it goes, and it takes no connection any more."""
    away.standins["first"].stop()
    replica(away, "ready", away.standins["first"].port)
    until(lambda: state(away) == "ready")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        replica(away, "draining", away.standins["first"].port)
        asked = pool.submit(ask, away, "coming")
        until(lambda: away.rows(WAITING))
        another_replica(away, away.standins["alpha"].port)
        assert asked.result().status_code == 200


def test_one_whose_replica_stays_and_fails_is_told_so(away: Service) -> None:
    away.standins["alpha"].tell(error_status=500)
    replica(away, "ready", away.standins["alpha"].port)
    until(lambda: state(away) == "ready")
    answer = ask(away, "coming")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")


def test_who_leaves_waits_no_longer(away: Service) -> None:
    with away.http() as client, client.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
        next(response.iter_lines())
    until(lambda: not away.rows(WAITING))


def body(**more: object) -> dict:
    return {"model": "coming", "messages": MESSAGES, **more}
