"""The official OpenAI client against a real service with the real starter model; each test with a token and with a key."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.running_service import Service

pytestmark = pytest.mark.e2e

MODEL = "smollm2-135m-instruct"
QUESTION = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module", params=["token", "key"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def credential(service: Service, kind: str) -> Iterator[str]:
    with credential_of(service, service.token(), kind) as given:
        yield given


@contextlib.contextmanager
def credential_of(service: Service, token: str, kind: str) -> Iterator[str]:
    """What the person with this token gives the client: the token, or a key made with it and revoked in the end."""
    if kind == "token":
        yield token
        return
    with service.client(token) as own:
        key = own.post("/api/v1/keys", json={"name": "official client"}).json()
        yield key["key"]
        own.delete(f"/api/v1/keys/{key['id']}").raise_for_status()


@pytest.fixture(scope="module")
def client(service: Service, credential: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=credential, max_retries=0) as opened:
        yield opened


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=16)
    assert answer.model == MODEL
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streamed_chat_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=16, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text
    assert {chunk.model for chunk in chunks} == {MODEL}
    assert chunks[-1].usage is not None
    assert 0 < chunks[-1].usage.completion_tokens <= 16


def test_completions_under_both_base_urls(service: Service, credential: str) -> None:
    for base in ("/v1", "/api/v1/v1"):
        with openai.OpenAI(base_url=service.base_url + base, api_key=credential, max_retries=0) as client:
            assert client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8).choices[0].text


def test_models(client: openai.OpenAI) -> None:
    assert MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve(MODEL).id == MODEL


def test_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize("wrong", ["wrong", "a.b.c", "sk-wrong", "sk-" + "x" * 43])
def test_wrong_key_is_an_authentication_error(service: Service, wrong: str) -> None:
    client = openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=wrong, max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as error:
        client.models.list()
    assert error.value.code == "invalid_api_key"


def test_too_long_a_prompt_is_refused_with_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 20_000}])
    assert error.value.code == "context_length_exceeded"
    assert "4096" in str(error.value)


def test_an_empty_balance_is_a_rate_limit_error(service: Service, kind: str) -> None:
    name, password = f"poor-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
    body = {"username": name, "password": password, "email": ""}
    registered = httpx.post(f"{service.base_url}/api/v1/auth/register", json=body, timeout=20).json()
    with credential_of(service, registered["access"], kind) as credential:
        client = openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=credential, max_retries=0)
        with client, pytest.raises(openai.RateLimitError) as error:
            # The 1,000 tokens of a new account cannot cover a prompt of some 1,500 bytes.
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 300}])
    assert error.value.code == "insufficient_quota"


def test_embeddings_of_a_chat_model_are_refused_in_words(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        client.embeddings.create(model=MODEL, input="hello")
    assert error.value.status_code in {400, 501}
    assert "embedding" in error.value.message.lower()
