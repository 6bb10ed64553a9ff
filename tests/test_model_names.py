"""An alias, the default and a system prompt with the real engine, which repeats in its answers the name that it is told."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest

from tests.running_service import Service, wait_for
from tests.test_openai_client import MODEL, QUESTION

pytestmark = pytest.mark.e2e

ALIAS = "openai/gpt-4o"
PROMPT = "Answer like a pirate. " * 30  # longer than what the model's template puts in by itself
NOTHING = {"aliases": [], "default": False, "systemPrompt": ""}


@pytest.fixture(scope="module")
def http(service: Service) -> Iterator[httpx.Client]:
    def configure(**fields: object) -> None:
        client.patch(f"/api/v1/models/{MODEL}", json=fields).raise_for_status()
        known = bool(fields["aliases"])
        wait_for(lambda: client.get(f"/v1/models/{ALIAS}").is_success is known, "the alias is known, or no longer")

    with service.client(service.token()) as client:
        configure(aliases=[ALIAS], default=True, systemPrompt=PROMPT)
        yield client
        configure(**NOTHING)


@pytest.fixture(scope="module")
def clients(service: Service, http: httpx.Client) -> Iterator[tuple[openai.OpenAI, anthropic.Anthropic]]:
    token = service.token()
    with (
        openai.OpenAI(base_url=f"{service.base_url}/v1", api_key=token, max_retries=0) as ours,
        anthropic.Anthropic(base_url=service.base_url, auth_token=token, max_retries=0) as theirs,
    ):
        yield ours, theirs


def test_the_answer_names_the_model(clients: tuple[openai.OpenAI, anthropic.Anthropic]) -> None:
    ours, theirs = clients
    short = {"model": ALIAS, "max_tokens": 2}
    stream = ours.chat.completions.create(messages=QUESTION, stream=True, **short)
    names = {
        ours.chat.completions.create(messages=QUESTION, **short).model,
        *(chunk.model for chunk in stream),
        ours.completions.create(prompt="One", **short).model,
        ours.responses.create(input="Hello", model=ALIAS, max_output_tokens=2).model,
        theirs.messages.create(messages=QUESTION, **short).model,
    }
    assert names == {MODEL}


def test_the_system_prompt_is_read_in_every_protocol(
    clients: tuple[openai.OpenAI, anthropic.Anthropic], http: httpx.Client
) -> None:
    ours, theirs = clients
    system = {"role": "system", "content": "Be short."}

    def chat(*messages: dict[str, str]) -> int:
        answer = http.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 2}).json()
        return int(answer["usage"]["prompt_tokens"])

    def responses(**fields: str) -> int:
        answer = ours.responses.create(input="Say hello.", model=MODEL, max_output_tokens=2, **fields)
        return answer.usage.input_tokens

    def message(**fields: str) -> int:
        usage = theirs.messages.create(messages=QUESTION, model=MODEL, max_tokens=2, **fields).usage
        return usage.input_tokens + (usage.cache_read_input_tokens or 0)

    theirs_counted = theirs.messages.count_tokens(model=MODEL, messages=QUESTION).input_tokens
    with_prompt = chat(*QUESTION)
    assert with_prompt > 100
    assert {responses(), message(), theirs_counted} == {with_prompt}
    own = {chat(system, *QUESTION), responses(instructions="Be short."), message(system="Be short.")}
    assert max(own) < 40
