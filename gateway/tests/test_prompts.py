from __future__ import annotations

from typing import Any

from gateway.endpoints import ENDPOINTS
from gateway.prompts import FIRST_BLOCK, MOST_PARTS, STEP, chain

CHAT = ENDPOINTS["chat.completions"]


def said(*texts: str, **fields: Any) -> Any:
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
    return chain(CHAT, {"messages": messages, **fields})


def common(one: Any, other: Any) -> int:
    """Bytes of ``one`` that ``other`` begins with."""
    known = set(other.hashes)
    return max((size for digest, size in zip(one.hashes, one.sizes, strict=True) if digest in known), default=0)


def test_a_conversation_continues_its_chain() -> None:
    first, second = said("Hello."), said("Hello.", "Hi!", "How are you?")
    assert second.hashes[:1] == first.hashes
    assert second.answers == (False, True, False)
    assert second.key == said("Hello.", "Hi!", "How are you?", "Fine.", "And?").key


def test_all_turns_of_a_conversation_have_one_key_and_others_another() -> None:
    """A key of the beginning alone would bind all that share a system prompt to one replica (SGLang #26263)."""
    system = {"role": "system", "content": "s" * 5 * FIRST_BLOCK}

    def key(*texts: str) -> int:
        roles = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
        return chain(CHAT, {"messages": [system, *roles]}).key

    assert key("Who?") == key("Who?", "I.", "Why?") == key("Who?", "I.", "Why?", "So.", "Ah.")
    assert key("Who?") != key("What?")
    assert said("Who?").key == said("Who?", "I.", "Why?").key != said("What?").key


def test_what_differs_anywhere_before_differs_from_there_on() -> None:
    assert common(said("a", "b", "c"), said("a", "x", "c")) == said("a").size
    assert common(said("a"), said("a", tools=[{"type": "function"}])) == 0
    assert common(said("ab", "c"), said("a", "bc")) == 0
    with_system = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}]
    assert common(chain(CHAT, {"messages": with_system}), said("a")) == 0


def test_parameters_that_do_not_change_the_prompt() -> None:
    assert said("a", temperature=0.5, stream=True, max_tokens=7, model="x") == said("a")


def test_a_long_message_has_beginnings_of_its_own() -> None:
    document = "x" * 20 * FIRST_BLOCK
    one, other = said(document + "What is it?"), said(document + "Who wrote it?")
    assert common(one, other) >= 16 * FIRST_BLOCK
    assert len(one.hashes) == 6


def test_a_very_long_conversation_keeps_its_chain_for_a_while() -> None:
    texts = [f"message {number}" for number in range(MOST_PARTS + 3 * STEP)]
    before, after = said(*texts[:-5]), said(*texts[:-3])
    assert common(after, before) == before.size
    assert len(said(*texts).hashes) <= MOST_PARTS + STEP


def test_other_forms() -> None:
    text = chain(ENDPOINTS["completions"], {"prompt": "Once upon a time"})
    assert len(text.hashes) == 1
    assert chain(ENDPOINTS["completions"], {"prompt": [1, 2, 3]}).size > 0
    assert chain(ENDPOINTS["completions"], {"prompt": ["a", "b"]}).size > 0
    assert chain(ENDPOINTS["embeddings"], {"input": "x"}).hashes == ()
    parts = [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}, {"role": "user"}]
    assert len(chain(CHAT, {"messages": parts}).hashes) == 2
    anthropic = ENDPOINTS["messages"]
    plain = chain(anthropic, {"system": "s", "messages": [{"role": "user", "content": "a"}]})
    assert plain.hashes != chain(anthropic, {"system": "t", "messages": [{"role": "user", "content": "a"}]}).hashes
    assert len(chain(ENDPOINTS["responses"], {"input": [{"role": "user", "content": "a"}]}).hashes) == 1
