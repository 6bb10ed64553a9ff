"""Models that are loaded when asked for, on a real service with the real engine: no request fails for a model's being away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.running_service import Service, running, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
STARTER = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    """``first`` and ``second`` never run together; ``brief`` is unloaded after a second, ``broken`` cannot be loaded."""
    with running(tmp_path_factory.mktemp("on-demand") / "home") as service, service.client() as client:
        client.patch(f"/api/v1/models/{STARTER}", json={"active": False}).raise_for_status()
        (service.home / "models" / "broken.gguf").write_bytes(b"GGUF and nothing else")
        for name, more in {
            "first": {"group": "one"},
            "second": {"group": "one"},
            "brief": {"ttl": 1},
            "broken": {"modelFile": "broken.gguf"},
        }.items():
            body = {"modelName": name, "modelFile": FILE, "contextLength": 1024, "policy": "on_demand", **more}
            client.post("/api/v1/models", json=body).raise_for_status()
        wait_for(
            lambda: {"first", "broken"} <= {model.id for model in sdk(service).models.list()}, "the gateway to know"
        )
        wait_for(lambda: running_models(client) == set(), "the end of the starter model", 60)
        yield service


def sdk(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=service.token(), max_retries=0, timeout=120)


def asks(client: openai.OpenAI, model: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    return answer.choices[0].message.content or ""


def running_models(client: httpx.Client) -> set[str]:
    return {model["modelName"] for model in client.get("/api/v1/models").json()["models"] if model["running"]}


def test_a_request_loads_a_model_and_another_takes_its_place(service):
    with service.client() as client:
        assert running_models(client) == set()
        assert asks(sdk(service), "first")
        assert running_models(client) == {"first"}
        assert asks(sdk(service), "second")
        assert running_models(client) == {"second"}


def test_a_stream_is_told_that_it_waits_and_is_answered_then(service):
    """The one that is there has come a moment ago and stays for a while."""
    assert asks(sdk(service), "second")
    body = {"model": "first", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 8, "stream": True}
    with service.client() as client:
        client.post("/api/v1/models/second/restart?wait=60").raise_for_status()
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = [line for line in response.iter_lines() if line]
    assert response.status_code == 200
    assert lines[0].startswith(": loading the model, position 1, about ")
    assert lines[-1] == "data: [DONE]"
    told = [model for model in sdk(service).models.list() if model.id == "first"]
    assert told[0].model_extra["state"] == "ready"


def test_what_needs_no_slot_waits_for_the_model_too(service):
    with service.client() as client:
        answer = client.post("/v1/tokenize", json={"model": "brief", "content": "one two"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["tokens"]


def test_requests_in_the_moment_of_an_unload_are_answered(service):
    """It is unloaded after a second, and asked again at about that time."""
    client = sdk(service)
    for turn in range(6):
        assert asks(client, "brief")
        time.sleep(0.9 + 0.06 * turn)


def test_many_at_once_cause_one_load(service):
    said: list[str] = []
    asker = sdk(service)
    threads = [threading.Thread(target=lambda: said.append(asks(asker, "brief"))) for _ in range(6)]
    with service.client() as client:
        wait_for(lambda: "brief" not in running_models(client), "its unloading", 60)
        loads = len(loads_of(service, "brief"))
        stays_loaded(client, 60)  # else whoever comes a second later than the others loads it again
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            stays_loaded(client, 1)
    assert len([text for text in said if text]) == 6
    assert len(loads_of(service, "brief")) == loads + 1


def stays_loaded(client: httpx.Client, seconds: int) -> None:
    client.patch("/api/v1/models/brief", json={"ttl": seconds}).raise_for_status()


def loads_of(service: Service, model: str) -> list[dict]:
    return [entry for entry in service.log() if entry.get("message", "").startswith(f"{model}: loaded")]


def test_one_that_cannot_be_loaded_is_refused(service):
    with pytest.raises(openai.InternalServerError) as refused:
        asks(sdk(service), "broken")
    assert refused.value.status_code == 503
    assert refused.value.code == "model_not_available"
    with service.client() as client:
        (replica,) = client.get("/api/v1/models/broken").json()["running"]
        assert replica["error"]


def test_start_loads_it_and_stop_keeps_requests_from_doing_so(service):
    with service.client() as client:
        answer = client.post("/api/v1/models/first/start?wait=60")
        assert (answer.status_code, answer.json()["state"]) == (200, "ready")
        assert client.post("/api/v1/models/first/stop?wait=60").json()["state"] == "stopped"
        wait_for(lambda: "first" not in {model.id for model in sdk(service).models.list()}, "the gateway to see it")
        with pytest.raises(openai.NotFoundError):
            asks(sdk(service), "first")
