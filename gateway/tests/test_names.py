"""Aliases, the default model, system prompts and shares of the traffic through a real web server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from gateway.tests.conftest import Service, until
from gateway.tests.test_keys_and_limits import make_keys

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "user", "content": "Is it so?"}]
SYSTEM = "Answer like a pirate"  # four tokens of the stand-in
SET = "UPDATE models_app_modelconfig SET aliases = ?, is_default = ?, system_prompt = ?, traffic = ? WHERE name = ?"
NOTHING = {"aliases": [], "default": False, "system": "", "traffic": {}}


def configure(service: Service, **models: dict) -> None:
    for name, given in models.items():
        wanted = NOTHING | given
        aliases, traffic = json.dumps(wanted["aliases"]), json.dumps(wanted["traffic"])
        service.change(SET, aliases, wanted["default"], wanted["system"], traffic, name)


@pytest.fixture(scope="module")
def named(running: Service) -> Iterator[Service]:
    """``alpha`` is the default and has aliases, ``twins`` a system prompt; ``narrow`` gives half of its requests away."""
    models = {
        "alpha": {"aliases": ["gpt-4o", "openai/gpt-4o"], "default": True},
        "twins": {"aliases": ["pirate"], "system": SYSTEM},
        "narrow": {"traffic": {"alpha": 50}},
        "broken": {"aliases": ["never"]},
        "vectors": {"traffic": {"alpha": 100}, "system": SYSTEM},
        "coming": {"traffic": {}},
    }
    configure(running, **models)
    with running.http() as http:
        until(lambda: "pirate" in http.get("/v1/models").text)
    yield running
    configure(running, **dict.fromkeys(models, NOTHING))
    with running.http() as http:
        until(lambda: "pirate" not in http.get("/v1/models").text)


@pytest.fixture(scope="module")
def keys(named: Service) -> dict[str, str]:
    return make_keys(
        named,
        alias_only={"allowed_models": ["gpt-4o"]},
        narrow_only={"allowed_models": ["narrow"]},
    )


def client_of(service: Service, token: str = "") -> openai.OpenAI:
    return openai.OpenAI(base_url=service.url + "/v1", api_key=token or service.tokens["ann"], max_retries=0)


def ask(service: Service, text: str = "Is it so?", **fields: object) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2, **fields}
    with service.http() as http:
        return http.post("/v1/chat/completions", json=body)


# -- aliases ---------------------------------------------------------------------------------------------------------------
def test_an_alias_is_the_model(named: Service, service: Service) -> None:
    client = client_of(service)
    listed = {model.id: model for model in client.models.list()}
    assert (listed["gpt-4o"].alias_of, listed["gpt-4o"].state) == ("alpha", "ready")
    assert not hasattr(listed["alpha"], "alias_of")
    assert client.models.retrieve("openai/gpt-4o").alias_of == "alpha"
    for stream in (False, True):
        with client.chat.completions.with_streaming_response.create(
            model="openai/gpt-4o", messages=MESSAGES, stream=stream
        ) as raw:
            text = "".join(raw.iter_text())
        assert '"model":"alpha"' in text
        assert "gpt-4o" not in text
        record = service.usage(raw.headers["x-request-id"])
        assert (record["model_name"], record["replica"]) == ("alpha", "alpha/1")


def test_an_alias_in_our_own_chat(named: Service, service: Service) -> None:
    with service.http() as http:
        answer = http.post("/api/v1/models/gpt-4o/chat", json={"message": "hello"}).json()
    assert answer["model"] == "alpha"


def test_a_key_for_one_of_a_models_names_is_one_for_the_model(
    named: Service, service: Service, keys: dict[str, str]
) -> None:
    client = client_of(service, keys["alias_only"])
    assert [model.id for model in client.models.list()] == ["alpha", "gpt-4o", "openai/gpt-4o"]
    for name in ("gpt-4o", "alpha"):
        assert client.chat.completions.create(model=name, messages=MESSAGES).model == "alpha"
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="pirate", messages=MESSAGES)


# -- the default -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("fields", [{}, {"model": None}, {"model": ""}])
def test_a_request_without_a_model_gets_the_default(named: Service, service: Service, fields: dict) -> None:
    answer = ask(service, **fields)
    assert answer.json()["model"] == "alpha"
    assert service.usage(answer.headers["x-request-id"])["model_name"] == "alpha"
    assert service.standins["alpha"].seen()[-1]["body"]["model"] == "alpha"


def test_an_unknown_name_is_not_answered_by_the_default(named: Service, service: Service) -> None:
    answer = ask(service, model="gpt-4")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_the_default_comes_first(named: Service, service: Service) -> None:
    first = next(iter(client_of(service).models.list()))
    assert (first.id, first.default) == ("alpha", True)


def test_without_a_default_the_name_is_missing(named: Service, service: Service) -> None:
    service.change("UPDATE models_app_modelconfig SET is_default = 0")
    try:
        answer = until(lambda: (said := ask(service)).status_code == 400 and said)
        assert answer.json()["error"]["param"] == "model"
    finally:
        service.change("UPDATE models_app_modelconfig SET is_default = 1 WHERE name = 'alpha'")
        until(lambda: ask(service).status_code == 200)


# -- system prompts ----------------------------------------------------------------------------------------------------------
def test_the_models_system_prompt_is_read_and_paid(named: Service, service: Service) -> None:
    answers = [ask(service, model=name) for name in ("alpha", "pirate")]
    counts = [service.usage(answer.headers["x-request-id"])["prompt_tokens"] for answer in answers]
    assert counts[1] - counts[0] == len(SYSTEM.split())
    seen = [
        entry["body"]["messages"]
        for name in ("first", "second")
        for entry in service.standins[name].seen()
        if "messages" in entry["body"]
    ]
    assert [{"role": "system", "content": SYSTEM}, *MESSAGES] in seen


def test_the_hold_covers_the_system_prompt(named: Service, service: Service) -> None:
    """Somebody whose balance pays for the question alone is not served for nothing."""
    with service.http("pinched") as http:
        answers = [
            http.post("/v1/chat/completions", json={"model": name, "messages": MESSAGES}) for name in ("twins", "alpha")
        ]
    assert [answer.status_code for answer in answers] == [429, 200]
    assert 0 < int(answers[1].headers["x-max-tokens"]) < len(SYSTEM)


def test_completions_get_none(named: Service, service: Service) -> None:
    client_of(service).completions.create(model="twins", prompt="untouched", max_tokens=1)
    seen = [entry["body"] for name in ("first", "second") for entry in service.standins[name].seen()]
    assert [body for body in seen if body.get("prompt") == "untouched" and "messages" not in body]
    client_of(service).embeddings.create(model="vectors", input="vectors stay where they are")
    assert "system" not in json.dumps(service.standins["vectors"].seen()[-1]["body"])


# -- shares ------------------------------------------------------------------------------------------------------------------
def answered_by(service: Service, text: str, *turns: str) -> str:
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": said} for number, said in enumerate((text, *turns))
    ]
    answer = ask(service, model="narrow", messages=messages)
    record = service.usage(answer.headers["x-request-id"])
    assert answer.json()["model"] == record["model_name"]
    assert record["replica"] == f"{record['model_name']}/1"
    return record["model_name"]


def test_a_share_of_the_conversations_goes_to_the_other_model_and_stays_there(named: Service, service: Service) -> None:
    begun = {text: answered_by(service, text) for text in (f"question {number}" for number in range(12))}
    assert set(begun.values()) == {"alpha", "narrow"}
    for text, model in list(begun.items())[:6]:
        assert answered_by(service, text, "yes", "and now?") == model


def test_the_right_to_the_model_asked_for_is_enough(named: Service, service: Service, keys: dict[str, str]) -> None:
    client = client_of(service, keys["narrow_only"])
    models = {
        client.chat.completions.create(model="narrow", messages=[{"role": "user", "content": f"question {n}"}]).model
        for n in range(12)
    }
    assert models == {"alpha", "narrow"}
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="alpha", messages=MESSAGES)


def test_a_share_for_one_that_does_not_run_stays(named: Service, service: Service) -> None:
    configure(service, narrow={"traffic": {"broken": 100}, "aliases": ["changed"]})
    try:
        with service.http() as http:
            until(lambda: "changed" in http.get("/v1/models").text)
        assert {answered_by(service, f"question {number}") for number in range(6)} == {"narrow"}
    finally:
        configure(service, narrow={"traffic": {"alpha": 50}})


def test_a_trial_that_fails_is_nobody_elses_failure(named: Service, service: Service) -> None:
    """The model asked for answers what the one with a share of it could not."""
    given = next(text for text in (f"question {n}" for n in range(100)) if answered_by(service, text) == "alpha")
    service.standins["alpha"].tell(error_status=500)
    for stream in (False, True):
        answer = ask(service, given, model="narrow", stream=stream)
        assert (answer.status_code, '"model":"narrow"' in answer.text.replace(": ", ":")) == (200, True)
        request_id = answer.headers["x-request-id"]
        own, trial = service.usage(request_id), service.usage(request_id + "-trial")
        assert (own["model_name"], own["outcome"], own["cost"] > 0) == ("narrow", "completed", True)
        assert (trial["model_name"], trial["outcome"], trial["cost"]) == ("alpha", "failed", 0)
    service.standins["narrow"].tell(error_status=500)
    failed = ask(service, given, model="narrow")
    assert (failed.status_code, service.usage(failed.headers["x-request-id"])["model_name"]) == (502, "narrow")


def test_a_trial_counts_once(named: Service, service: Service) -> None:
    """Against what a key may ask for, also when it fails and the other one answers."""
    key = make_keys(service, twice={"requests_per_minute": 2})["twice"]
    client = client_of(service, key)
    given = next(text for text in (f"question {n}" for n in range(100)) if answered_by(service, text) == "alpha")
    service.standins["alpha"].tell(error_status=500)
    messages = [{"role": "user", "content": given}]
    for _ in range(2):
        assert client.chat.completions.create(model="narrow", messages=messages).model == "narrow"
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="narrow", messages=messages)
