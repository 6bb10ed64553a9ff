"""Each client passes its script: connected as ``docs/clients.md`` shows, against a real service with the real starter model."""

from __future__ import annotations

import pytest

from tests.clients.conftest import APART, OURS, Run

# Making an environment is part of the first test that needs it.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

USUAL = ("chat", "stream", "tools", "json_schema")
SCRIPTS = {
    "curl_client": (*USUAL, "embeddings"),
    "openai_client": (*USUAL, "streamed_tools", "responses", "embeddings"),
    "anthropic_client": (*USUAL, "streamed_tools"),
    "langchain_client": (*USUAL, "embeddings"),
    "llamaindex_client": (*USUAL, "embeddings"),
    "instructor_client": USUAL,
}
# The official client in two versions: the newest, and the one that LlamaIndex asks for.
RUNS = (
    ("curl_client", OURS),
    ("openai_client", OURS),
    ("anthropic_client", OURS),
    ("langchain_client", APART),
    ("llamaindex_client", APART),
    ("instructor_client", APART),
    ("openai_client", APART),
)
ALL = [(name, place, function) for name, place in RUNS for function in (*SCRIPTS[name], "no_other_machine")]


@pytest.mark.parametrize(("name", "place", "function"), ALL)
def test_a_client(run: Run, name: str, place: str, function: str) -> None:
    assert run(name, place)[function] == ""


def test_all_of_each_script_is_looked_at(run: Run) -> None:
    for name, place in RUNS:
        assert set(run(name, place)) == {*SCRIPTS[name], "no_other_machine"}
