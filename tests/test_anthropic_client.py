"""The official Anthropic client against a real service with the real starter model: a key in ``x-api-key``, a token as bearer."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import pytest

from tests.running_service import Service
from tests.test_openai_client import MODEL, credential_of

pytestmark = pytest.mark.e2e

QUESTION = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module", params=["x-api-key", "bearer", "token in x-api-key"])
def client(service: Service, request: pytest.FixtureRequest) -> Iterator[anthropic.Anthropic]:
    kind = "token" if "token" in request.param else "key"
    with credential_of(service, service.token(), kind) as given:
        named = {"auth_token": given} if request.param == "bearer" else {"api_key": given}
        with anthropic.Anthropic(base_url=service.base_url, max_retries=0, **named) as opened:
            yield opened


def test_a_message(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(model=MODEL, max_tokens=16, messages=QUESTION)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", MODEL)
    assert "".join(block.text for block in answer.content)
    assert 0 < answer.usage.output_tokens <= 16


def test_a_streamed_message(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model=MODEL, max_tokens=16, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        whole = stream.get_final_message()
    assert text == "".join(block.text for block in whole.content)
    assert text
    assert whole.stop_reason in {"end_turn", "max_tokens"}


def test_counting_tokens(client: anthropic.Anthropic) -> None:
    few = client.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens
    more = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "word " * 50}]).input_tokens
    assert 0 < few < more


def test_models(client: anthropic.Anthropic) -> None:
    assert MODEL in {model.id for model in client.models.list().data}


def test_unknown_model_is_not_found(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as error:
        client.messages.create(model="no-such-model", max_tokens=4, messages=QUESTION)
    assert error.value.body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    "wrong", [{"api_key": "sk-" + "x" * 43}, {"auth_token": "sk-" + "x" * 43}, {"api_key": "wrong"}]
)
def test_a_wrong_key_is_an_authentication_error(service: Service, wrong: dict[str, str]) -> None:
    client = anthropic.Anthropic(base_url=service.base_url, max_retries=0, **wrong)
    with client, pytest.raises(anthropic.AuthenticationError) as error:
        client.messages.create(model=MODEL, max_tokens=4, messages=QUESTION)
    assert error.value.body["error"]["type"] == "authentication_error"


def test_a_key_that_may_only_look_is_refused(service: Service) -> None:
    with service.client() as own:
        made = own.post("/api/v1/keys", json={"name": "looks", "scopes": ["models:read"]}).json()
        client = anthropic.Anthropic(base_url=service.base_url, max_retries=0, api_key=made["key"])
        with client, pytest.raises(anthropic.PermissionDeniedError) as error:
            client.messages.create(model=MODEL, max_tokens=4, messages=QUESTION)
        own.delete(f"/api/v1/keys/{made['id']}").raise_for_status()
    assert error.value.body["error"]["type"] == "permission_error"
