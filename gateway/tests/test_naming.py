"""Which model answers, and with which system prompt: decided without I/O."""

from __future__ import annotations

import pytest

from gateway import bodies, naming, resolving
from gateway.endpoints import ENDPOINTS
from models_app.selectors import ModelView
from models_app.states import State

CHAT, RESPONSES, MESSAGES = (ENDPOINTS[name] for name in ("chat.completions", "responses", "messages"))
PROMPT = "Answer like a pirate."


def view(name: str = "m", **fields) -> ModelView:
    return ModelView(name, State.READY, 64, 512, False, "", 0, (), **fields)


def question(text: object, *later: str) -> dict:
    roles = ("assistant", "user")
    turns = [{"role": roles[number % 2], "content": said} for number, said in enumerate(later)]
    return {"messages": [{"role": "user", "content": text}, *turns]}


def share(percent: int, endpoint=CHAT) -> set[int]:
    """The conversations, of 2000, that go to the other model."""
    model = view(traffic=(("new", percent),))
    return {
        number
        for number in range(2000)
        if naming.answering(model, endpoint, question(f"question {number}"), 1, lambda name: True) == "new"
    }


def test_names_that_stand_for_a_model() -> None:
    views = [view("a", aliases=("x", "y/z")), view("b", is_default=True)]
    assert naming.names_of(views) == {"x": "a", "y/z": "a", naming.NO_NAME: "b"}


def test_a_share_is_as_large_as_it_says_and_grows_by_further_conversations() -> None:
    ten, thirty = share(10), share(30)
    assert 150 < len(ten) < 250
    assert 500 < len(thirty) < 700
    assert ten < thirty
    assert share(0) == set()
    assert len(share(100)) == 2000


def test_what_is_left_over_stays() -> None:
    model = view(traffic=(("new", 40), ("other", 40)))
    seen = [naming.answering(model, CHAT, question(str(n)), 1, lambda name: True) for n in range(500)]
    assert [70 < seen.count(name) < 260 for name in ("new", "other", "m")] == [True] * 3


def test_one_that_does_not_serve_gets_nothing() -> None:
    assert naming.answering(view(traffic=(("new", 100),)), CHAT, question("x"), 1, lambda name: False) == "m"


@pytest.mark.parametrize("name", ["embeddings", "tokenize", "detokenize"])
def test_what_would_mean_something_else_is_not_split(name: str) -> None:
    assert share(100, ENDPOINTS[name]) == set()


def test_a_conversation_begins_the_same_however_long_it_is() -> None:
    parts = [{"type": "text", "text": "hello"}]
    bodies_of_one = [
        question("hello"),
        question("hello", "hi", "and now?"),
        question(parts, "hi"),
        {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "hello"}]},
        {"input": "hello"},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}, {"role": "assistant"}]},
    ]
    assert {naming.beginning(body) for body in bodies_of_one} == {"hello"}
    assert naming.beginning({"prompt": "hello"}) != naming.beginning({"prompt": "hello again"})


@pytest.mark.parametrize(
    "body",
    [{}, {"input": [None, 3]}, {"messages": [{"role": "user", "content": {"text": "\ud800"}}]}, {"prompt": [[1], "a"]},
     {"messages": [{"role": "user"}]}, {"query": "q", "documents": []}],
)  # fmt: skip
def test_any_body_has_a_place(body: dict) -> None:
    assert naming.answering(view(traffic=(("new", 100),)), CHAT, body, 1, lambda name: True) == "new"


# -- system prompts ------------------------------------------------------------------------------------------------------
def fitted(endpoint, **fields) -> dict:
    body = {"model": "m", endpoint.required: "x", **fields}
    return resolving.fitted(endpoint, body, view(system_prompt=PROMPT))[0]


ASKED = [{"role": "user", "content": "hello"}]


def test_a_chat_without_a_system_prompt_gets_the_models() -> None:
    system = {"role": "system", "content": PROMPT}
    assert fitted(CHAT, messages=ASKED)["messages"] == [system, *ASKED]
    assert fitted(MESSAGES, messages=ASKED)["system"] == PROMPT
    assert fitted(ENDPOINTS["messages.count_tokens"], messages=ASKED)["system"] == PROMPT
    assert fitted(RESPONSES, input="hello")["instructions"] == PROMPT
    assert fitted(RESPONSES, input=ASKED, instructions=None)["instructions"] == PROMPT


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    [
        (CHAT, {"messages": [*ASKED, {"role": "system", "content": ""}]}),
        (CHAT, {"messages": [{"role": "developer", "content": "x"}, *ASKED]}),
        (MESSAGES, {"messages": ASKED, "system": ""}),
        (MESSAGES, {"messages": ASKED, "system": [{"type": "text", "text": "x"}]}),
        (RESPONSES, {"input": "hello", "instructions": "x"}),
        (RESPONSES, {"input": [{"role": "system", "content": "x"}, 3]}),
        (ENDPOINTS["completions"], {"prompt": "hello"}),
        (ENDPOINTS["embeddings"], {"input": "hello"}),
        (ENDPOINTS["tokenize"], {"content": "hello"}),
    ],
)
def test_ones_own_stays_and_what_is_no_chat_gets_none(endpoint, fields: dict) -> None:
    assert fitted(endpoint, **fields) == {"model": "m", endpoint.required: "x", **fields}


def test_a_body_that_needs_no_change_is_the_clients_own() -> None:
    body = {"model": "m", "messages": ASKED}
    assert resolving.fitted(CHAT, body, view()) == (body, 0)
    assert resolving.fitted(CHAT, body, view())[0] is body
    assert resolving.fitted(CHAT, {"messages": ASKED}, view())[0]["model"] == "m"


@pytest.mark.parametrize("text", [PROMPT, "说中文。🙂" * 50])
@pytest.mark.parametrize("endpoint", [CHAT, MESSAGES, RESPONSES])
def test_the_hold_counts_the_system_prompt_as_if_it_had_been_sent(endpoint, text: str) -> None:
    body = {"model": "m", endpoint.required: ASKED}
    sent, more = resolving.fitted(endpoint, body, view(system_prompt=text))
    bound = bodies.check(endpoint, body).prompt_bound + more
    assert bound >= bodies.check(endpoint, sent).prompt_bound - len("instructions")
    assert more >= len(text.encode())
