"""The requests. Each goes to the gateway and to the llama-server itself; ``test_conformance.py`` compares what they say.

"tiny" has random weights and answers in a millisecond; "real" is the starter model, for what only a model with sense comes to the
end of (grammars, schemas). Both are deterministic: one thread's arithmetic, a fixed seed, nothing out of the cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """``warm``: asked once before, since the engine takes what it can from its cache all the same."""

    endpoint: str
    name: str
    body: dict[str, Any] = field(hash=False)
    warm: bool = False

    @property
    def title(self) -> str:
        return f"{self.endpoint}: {self.name}"


SURE = {"temperature": 0, "seed": 1, "cache_prompt": False}
DRAWN = {"temperature": 0.8, "seed": 1, "cache_prompt": False}
SYSTEM, HELLO = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}
SYSTEM_OF_ANOTHER_NAME = {"role": "developer", "content": "Be brief."}
PARTS = [{"type": "text", "text": "Say"}, {"type": "text", "text": " hi"}]
TURNS = [SYSTEM, HELLO, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Again."}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CHOSEN = {"type": "function", "function": {"name": "clock"}}
ANSWER = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer"}},
    "required": ["ok", "n"],
}


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def called(number: int, city: str, found: str) -> list[dict[str, Any]]:
    """A call of the tool, and what came of it."""
    function = {"name": "weather", "arguments": json.dumps({"city": city})}
    call = {"id": f"call-{number}", "type": "function", "function": function}
    told = {"role": "tool", "tool_call_id": f"call-{number}", "content": found}
    return [{"role": "assistant", "content": "", "tool_calls": [call]}, told]


# After two such turns even a small model calls the tool again.
WEATHER = [said("Oslo?"), *called(1, "Oslo", "rain"), said("Rome?"), *called(2, "Rome", "sun"), said("Bern?")]


# -- what every way to generate takes, one after the other --------------------------------------------------------------
SAMPLING: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 1.3},
    "a temperature of 0": {"temperature": 0},
    "a temperature of null": {"temperature": None},
    "dynatemp": {"dynatemp_range": 0.5, "dynatemp_exponent": 1.2},
    "top_k": {"top_k": 5},
    "top_k off": {"top_k": 0},
    "top_p": {"top_p": 0.5},
    "min_p": {"min_p": 0.3},
    "typical_p": {"typical_p": 0.5},
    "top_n_sigma": {"top_n_sigma": 1.0},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.01},
    "repeat_penalty": {"repeat_penalty": 1.5, "repeat_last_n": 16},
    "presence_penalty": {"presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 1.5},
    "dry": {"dry_multiplier": 1.0, "dry_base": 2.0, "dry_allowed_length": 1, "dry_penalty_last_n": 64},
    "dry_sequence_breakers": {"dry_multiplier": 1.0, "dry_sequence_breakers": ["\n", "token1"]},
    "mirostat": {"mirostat": 1, "mirostat_tau": 3.0, "mirostat_eta": 0.2},
    "mirostat 2": {"mirostat": 2},
    "adaptive": {"adaptive_target": 0.3, "adaptive_decay": 0.5},
    "samplers": {"samplers": ["top_k", "temperature"], "top_k": 3},
    "samplers as letters": {"samplers": "kt", "top_k": 3},
    "logit_bias": {"logit_bias": [[300, 50.0]]},
    "logit_bias as an object": {"logit_bias": {"300": 50}},
    "logit_bias of a word": {"logit_bias": [["token1", 5.0]]},
    "logit_bias that forbids": {"logit_bias": [[number, False] for number in range(300, 400)]},
    "ignore_eos": {"ignore_eos": True},
    "min_keep": {"min_keep": 5, "top_p": 0.1},
    "another seed": {"seed": 7},
    "n_probs": {"n_probs": 3},
    "post_sampling_probs": {"n_probs": 3, "post_sampling_probs": True},
    "return_tokens": {"return_tokens": True},
    "timings_per_token": {"timings_per_token": True},
    "t_max_predict_ms": {"t_max_predict_ms": 60_000},
    "n_indent": {"n_indent": 4},
    "backend_sampling": {"backend_sampling": True},
    "stop": {"stop": "token"},
    "several stops": {"stop": ["1", "2", "3"]},
    "no stops": {"stop": []},
    "a grammar": {"grammar": "root ::= [a-z] [a-z] [a-z]"},
    "speculative": {"speculative.n_max": 4, "speculative.p_min": 0.5},
    "reasoning_budget": {"reasoning_budget_tokens": 2, "reasoning_budget_message": "Enough."},
    "response_fields": {"response_fields": ["content", "stop", "timings", "generation_settings/n_predict"]},
    "user and metadata": {"user": "somebody", "metadata": {"a": "b"}},
    "an unknown field": {"no_such_field": {"a": [1, None]}},
    "the longest name of a limit": {"max_completion_tokens": 2},
    "the engine's name of a limit": {"n_predict": 2},
    "two limits": {"max_tokens": 5, "n_predict": 2},
    "one token": {"max_tokens": 1},
    "stream false": {"stream": False},
}
STARTS: dict[str, dict[str, Any]] = {
    "chat.completions": {"model": "tiny", "messages": [HELLO]},
    "completions": {"model": "tiny", "prompt": "Once upon"},
    "infill": {"model": "tiny", "input_prefix": "def f(", "input_suffix": "return x"},
}


def sampling() -> Iterator[Row]:
    for endpoint, start in STARTS.items():
        for name, fields in SAMPLING.items():
            if endpoint == "chat.completions" and "n_probs" in fields:
                fields = {**fields, "logprobs": True, "top_logprobs": 3}
            limit = {} if {"max_tokens", "n_predict", "max_completion_tokens"} & set(fields) else {"max_tokens": 4}
            yield Row(endpoint, name, {**start, **DRAWN, **limit, **fields})
            if fields != {"stream": False}:
                yield Row(endpoint, f"{name}, streamed", {**start, **DRAWN, **limit, **fields, "stream": True})


# -- chat completions ----------------------------------------------------------------------------------------------------
TALKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a system prompt": {"messages": [SYSTEM, HELLO]},
    "several turns": {"messages": TURNS},
    "a developer's word": {"messages": [SYSTEM_OF_ANOTHER_NAME, HELLO]},
    "content in parts": {"messages": [{"role": "user", "content": PARTS}]},
    "an answer begun": {"messages": [HELLO, {"role": "assistant", "content": "He"}]},
    "an answer continued": {
        "messages": [HELLO, {"role": "assistant", "content": "He"}],
        "continue_final_message": True,
        "add_generation_prompt": False,
    },
    "tools": {"tools": [TOOL]},
    "tools not to be used": {"tools": [TOOL], "tool_choice": "none"},
    "tools in parallel": {"tools": [TOOL, CLOCK], "parallel_tool_calls": True},
    "parse_tool_calls": {"tools": [TOOL], "parse_tool_calls": False},
    "what a tool said": {"messages": [said("Oslo?"), *called(1, "Oslo", "rain")], "tools": [TOOL]},
    "earlier thoughts": {
        "messages": [HELLO, {"role": "assistant", "reasoning_content": "Hm.", "content": "Hello."}, HELLO]
    },
    "reasoning_format none": {"reasoning_format": "none"},
    "reasoning_format deepseek": {"reasoning_format": "deepseek"},
    "reasoning_format auto": {"reasoning_format": "auto"},
    "without thoughts": {"chat_template_kwargs": {"enable_thinking": False}},
    "chat_template_kwargs": {"chat_template_kwargs": {"something": 1}},
    "reasoning_effort": {"reasoning_effort": "low"},
    "thinking_budget_tokens": {"thinking_budget_tokens": 1},
    "reasoning_control": {"reasoning_control": True},
    "add_generation_prompt": {"add_generation_prompt": False},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
    "n of 2": {"n": 2},
    "n_cmpl of 2": {"n_cmpl": 2},
    "a template of one's own": {"chat_template": "{{ messages }}"},
    "response_format text": {"response_format": {"type": "text"}},
    "store and the like": {"store": True, "service_tier": "auto", "modalities": ["text"]},
}
STREAMS: dict[str, dict[str, Any]] = {
    "streamed": {},
    "usage at the end": {"stream_options": {"include_usage": True}},
    "no usage at the end": {"stream_options": {"include_usage": False}},
    "progress": {"return_progress": True},
    "progress, timings, usage": {
        "return_progress": True,
        "timings_per_token": True,
        "stream_options": {"include_usage": True},
    },
}
WITH_SENSE: dict[str, dict[str, Any]] = {
    "plain": {},
    "json_object": {"response_format": {"type": "json_object"}},
    "json_object with a schema": {"response_format": {"type": "json_object", "schema": ANSWER}},
    "json_schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER}}},
    "json_schema of llama.cpp": {"json_schema": ANSWER},
    "grammar": {"grammar": 'root ::= "yes" | "no"'},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "a stop": {"stop": ["\n", "."]},
    "to its end": {
        "messages": [{"role": "user", "content": "Say only: yes"}],
        "grammar": 'root ::= "yes"',
        "max_tokens": 8,
    },
}


# They have the same long prompt, which is read once.
CALLS: dict[str, dict[str, Any]] = {
    "a tool is called": {"tools": [TOOL]},
    "a tool that must be called": {"tools": [TOOL], "tool_choice": "required"},
    "tools called in parallel": {"tools": [TOOL], "parallel_tool_calls": True},
}

# What an engine passes over, and how it is told the same.
NAMED = {**STARTS["chat.completions"], **SURE, "model": "real", "messages": WEATHER, "max_tokens": 30}
NAMED_AS_ASKED = {**NAMED, "tools": [TOOL, CLOCK], "tool_choice": CHOSEN}
NAMED_AS_TOLD = {**NAMED, "tools": [CLOCK], "tool_choice": "required", "parallel_tool_calls": False}


def chats() -> Iterator[Row]:
    start = {**STARTS["chat.completions"], **SURE, "max_tokens": 4}
    yield from _rows("chat.completions", start, TALKS)
    streamed = {
        name: {**fields, "stream": True}
        for name, fields in TALKS.items()
        if fields.get("n", 1) == fields.get("n_cmpl", 1)
    }
    yield from _rows("chat.completions", start, streamed, ", streamed")
    yield from _rows("chat.completions", {**start, "stream": True}, STREAMS)
    real = {**start, "model": "real", "max_tokens": 6}
    yield from _rows("chat.completions", real, WITH_SENSE, " with sense")
    yield from _rows("chat.completions", {**real, "stream": True}, WITH_SENSE, " with sense, streamed")
    calling = {**real, "messages": WEATHER, "max_tokens": 30, "cache_prompt": True}
    yield from _rows("chat.completions", calling, CALLS, warm=True)
    yield from _rows("chat.completions", {**calling, "stream": True}, CALLS, ", streamed", warm=True)


# -- completions and infill --------------------------------------------------------------------------------------------------
PROMPTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "an empty prompt": {"prompt": ""},
    "tokens": {"prompt": [1, 300, 301]},
    "tokens and text": {"prompt": ["Once", 300]},
    "several prompts": {"prompt": ["Once", "Twice"]},
    "several prompts of tokens": {"prompt": [[1, 300], [301]]},
    "a prompt as an object": {"prompt": {"prompt_string": "Once"}},
    "n of 2": {"n": 2},
    "logprobs": {"logprobs": 2},
    "echo": {"echo": True},
    "suffix and best_of": {"suffix": "the end", "best_of": 1},
    "json_schema": {"json_schema": {"type": "integer"}},
}
HOLES: dict[str, dict[str, Any]] = {
    "plain": {},
    "nothing around": {"input_prefix": "", "input_suffix": ""},
    "a prompt": {"prompt": "x"},
    "input_extra": {"input_extra": [{"filename": "a.py", "text": "x = 1\n"}, {"text": "y = 2\n"}]},
    "no input_extra": {"input_extra": []},
    "n_cmpl of 2": {"n_cmpl": 2},
    "json_schema": {"json_schema": {"type": "integer"}},
    "n_predict of 0": {"n_predict": 0},
    "longer than what is read": {"input_prefix": "word " * 600},
}


def completions() -> Iterator[Row]:
    for endpoint, table in (("completions", PROMPTS), ("infill", HOLES)):
        start = {**STARTS[endpoint], **SURE, "max_tokens": 4}
        yield from _rows(endpoint, start, table)
        one_by_one = {
            name: fields for name, fields in table.items() if not name.startswith(("several", "n of", "n_cmpl"))
        }
        yield from _rows(endpoint, {**start, "stream": True}, one_by_one, ", streamed")
        yield from _rows(endpoint, {**start, "stream": True}, STREAMS)
    yield from _rows(
        "completions",
        {"model": "real", "prompt": "JSON:", **SURE, "max_tokens": 6},
        {"schema with sense": {"json_schema": ANSWER}},
    )


# -- responses and messages ---------------------------------------------------------------------------------------------------
SAID = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]}
RESPONSES: dict[str, dict[str, Any]] = {
    "plain": {},
    "instructions": {"instructions": "Be brief."},
    "a list": {"input": [{"role": "user", "content": "Hi"}]},
    "parts": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]},
    "several turns": {"input": [{"role": "user", "content": "Hi"}, SAID, {"role": "user", "content": "Again"}]},
    "tools": {"tools": [{"type": "function", "name": "weather", "parameters": CITY}]},
    "what a tool said": {
        "input": [
            {"role": "user", "content": "Hi"},
            {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "rain"},
        ]
    },
    "text format": {"text": {"format": {"type": "text"}}},
    "reasoning": {"reasoning": {"effort": "low"}},
    "store and the like": {"store": False, "metadata": {"a": "b"}, "truncation": "disabled", "include": []},
    "top_p": {"top_p": 0.5},
}
USE = {"type": "tool_use", "name": "weather", "input": {"city": "Oslo"}}
MESSAGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "system": {"system": "Be brief."},
    "system in parts": {"system": [{"type": "text", "text": "Be brief."}]},
    "several turns": {"messages": [HELLO, {"role": "assistant", "content": "Hello."}, HELLO]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    "tools": {"tools": [{"name": "weather", "description": "The weather.", "input_schema": CITY}]},
    "what a tool said": {
        "messages": [
            HELLO,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Oslo"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "rain"}]},
        ],
        "tools": [{"name": "weather", "input_schema": CITY}],
    },
    "stop_sequences": {"stop_sequences": ["token"]},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "top_k and top_p": {"top_k": 5, "top_p": 0.5},
    "metadata": {"metadata": {"user_id": "somebody"}},
}


def _used(city: str, found: str) -> list[dict[str, Any]]:
    use = {**USE, "id": f"use-{city}", "input": {"city": city}}
    result = {"type": "tool_result", "tool_use_id": f"use-{city}", "content": found}
    return [said(f"{city}?"), {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]


def _functions(city: str, found: str) -> list[dict[str, Any]]:
    call = {"type": "function_call", "call_id": city, "name": "weather", "arguments": json.dumps({"city": city})}
    return [said(f"{city}?"), call, {"type": "function_call_output", "call_id": city, "output": found}]


CALLED = {
    "messages": {
        "messages": [*_used("Oslo", "rain"), *_used("Rome", "sun"), said("Bern?")],
        "tools": [{"name": "weather", "description": "The weather.", "input_schema": CITY}],
        "max_tokens": 30,
    },
    "responses": {
        "input": [*_functions("Oslo", "rain"), *_functions("Rome", "sun"), said("Bern?")],
        "tools": [{"type": "function", "name": "weather", "description": "The weather.", "parameters": CITY}],
        "max_output_tokens": 30,
        "cache_prompt": True,
    },
}


def other_protocols() -> Iterator[Row]:
    said = {"model": "tiny", "input": "Say hello.", **SURE, "max_output_tokens": 4}
    asked = {"model": "tiny", "messages": [HELLO], **SURE, "max_tokens": 4}
    for endpoint, start, table in (("responses", said, RESPONSES), ("messages", asked, MESSAGES)):
        yield from _rows(endpoint, start, table, warm=True)
        yield from _rows(endpoint, {**start, "stream": True}, table, ", streamed", warm=True)
        real, called = {**start, "model": "real"}, {"plain": {}, "a tool is called": CALLED[endpoint]}
        yield from _rows(endpoint, real, called, " with sense", warm=True)
        yield from _rows(endpoint, {**real, "stream": True}, called, " with sense, streamed", warm=True)


# -- what does not generate -----------------------------------------------------------------------------------------------------
EMBEDDINGS: dict[str, dict[str, Any]] = {
    "a text": {"input": "token1 token2"},
    "texts": {"input": ["token1", "token2 token3"]},
    "tokens": {"input": [5, 6]},
    "lists of tokens": {"input": [[5, 6], [7]]},
    "base64": {"input": "token1", "encoding_format": "base64"},
    "float": {"input": ["token1"], "encoding_format": "float"},
    "an empty text": {"input": ""},
    "embd_normalize": {"input": "token1", "embd_normalize": -1},
    "dimensions and user": {"input": "token1", "dimensions": 8, "user": "somebody"},
    "an object": {"input": {"prompt_string": "token1"}},
    "many": {"input": ["token1"] * 20},
}
QUESTION = {"model": "reranker", "query": "token1", "documents": ["token2", "token3 token4", "token1 token1"]}
RERANKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "top_n": {"top_n": 1},
    "top_n of 0": {"top_n": 0},
    "return_documents": {"return_documents": True, "return_text": True},
    "an empty query": {"query": ""},
    "one document": {"documents": ["token5"]},
}
PIECES: dict[str, dict[str, Any]] = {
    "plain": {"content": "token1 é漢🙂"},
    "with_pieces": {"content": "token1 é", "with_pieces": True},
    "add_special": {"content": "token1", "add_special": True},
    "parse_special": {"content": "<s>token1", "parse_special": False},
    "an empty text": {"content": ""},
    "text and tokens": {"content": ["token1", 300]},
}


def without_answers() -> Iterator[Row]:
    yield from _rows("embeddings", {"model": "embedder"}, EMBEDDINGS)
    yield from _rows("rerank", QUESTION, RERANKS)
    for model in ("tiny", "real"):
        yield from _rows("tokenize", {"model": model}, PIECES, f" by {model}")
    tokens = {"plain": {"tokens": [300, 301]}, "bytes": {"tokens": [70, 71, 72]}, "none": {"tokens": []}}
    yield from _rows("detokenize", {"model": "tiny"}, tokens)
    talks = {
        name: TALKS[name] for name in ("plain", "with a system prompt", "several turns", "tools", "content in parts")
    }
    yield from _rows("chat.completions.input_tokens", {"model": "tiny", "messages": [HELLO]}, talks)
    yield from _rows("apply_template", {"model": "tiny", "messages": [HELLO]}, talks)
    counted = {name: RESPONSES[name] for name in ("plain", "instructions", "a list", "tools")}
    yield from _rows("responses.input_tokens", {"model": "tiny", "input": "Say hello."}, counted)
    counted = {name: MESSAGES[name] for name in ("plain", "system", "several turns", "tools", "what a tool said")}
    yield from _rows("messages.count_tokens", {"model": "tiny", "messages": [HELLO]}, counted)


def _rows(
    endpoint: str, start: dict[str, Any], table: dict[str, dict[str, Any]], suffix: str = "", *, warm: bool = False
) -> Iterable[Row]:
    for name, fields in table.items():
        yield Row(endpoint, name + suffix, {**start, **fields}, warm)


ANSWERED = [*sampling(), *chats(), *completions(), *other_protocols(), *without_answers()]
