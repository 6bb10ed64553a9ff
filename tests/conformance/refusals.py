"""Requests that the engine refuses: the gateway says the same in its own form, with the field's name where the engine has it."""

from __future__ import annotations

from typing import Any

from tests.conformance.rows import ANSWER, HELLO, STARTS, SURE, TOOL, Row

NUMBERS = [
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "seed",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
]
FLAGS = ["cache_prompt", "timings_per_token", "return_tokens", "return_progress", "ignore_eos", "post_sampling_probs"]
# By the endpoint: what is wrong, and the field that both name.
FIELDS: dict[str, dict[str, tuple[dict[str, Any], str | None]]] = {
    "chat.completions": {
        "a schema that is none": (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nope"}}}},
            None,
        ),
        "a format that is none": ({"response_format": {"type": "xml"}}, "response_format"),
        "tools that are no list": ({"tools": 5}, "tools"),
        "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools"),
        "a tool_choice that is none": ({"tools": [TOOL], "tool_choice": "often"}, "tool_choice"),
        "a grammar beside tools": ({"tools": [TOOL], "grammar": 'root ::= "a"'}, None),
        "two grammars": ({"json_schema": ANSWER, "grammar": 'root ::= "a"'}, None),
        "a reasoning_format that is none": ({"reasoning_format": "loud"}, None),
        "top_logprobs alone": ({"top_logprobs": 3}, "top_logprobs"),
        "a message without content": ({"messages": [{"role": "user"}]}, None),
        "a message without a role": ({"messages": [{"content": "Hi"}]}, "messages"),
        "a role of the wrong type": ({"messages": [{"role": 5, "content": "Hi"}]}, "messages"),
        "content of the wrong type": ({"messages": [{"role": "user", "content": 5}]}, "content"),
        "a part that is none": ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, None),
        "two answers begun": ({"messages": [HELLO, *[{"role": "assistant", "content": "He"}] * 2]}, None),
        "enable_thinking as a text": ({"chat_template_kwargs": {"enable_thinking": "yes"}}, None),
        "more answers than slots": ({"n": 8}, "n"),
        "include_usage of the wrong type": ({"stream_options": {"include_usage": 5}}, "include_usage"),
    },
    "completions": {
        "a stop of the wrong type": ({"stop": [5]}, "stop"),
        "a prompt of nothing": ({"prompt": [None]}, "prompt"),
        "tokens there are not": ({"prompt": [999_999]}, None),
        "negative tokens": ({"prompt": [-1]}, None),
        "a grammar that is none": ({"grammar": "root ::= other"}, None),
        "no sequence breakers": ({"dry_multiplier": 1, "dry_sequence_breakers": []}, "dry_sequence_breakers"),
        "samplers of the wrong type": ({"samplers": [1]}, "samplers"),
        "adaptive_decay below 0": ({"adaptive_decay": -1}, "adaptive_decay"),
        "repeat_penalty of 0": ({"repeat_penalty": 0}, None),
        "reasoning_budget_tokens below -1": ({"reasoning_budget_tokens": -5}, "reasoning_budget_tokens"),
        "n_indent below 0": ({"n_indent": -1}, "n_indent"),
        "repeat_last_n of -1": ({"repeat_last_n": -1}, "repeat_last_n"),
        "pictures for a model without eyes": ({"prompt": {"prompt_string": "a", "multimodal_data": []}}, None),
        "too long a prompt": ({"prompt": "word " * 3000}, "prompt"),
        **{f"{name} of the wrong type": ({name: "much"}, name) for name in NUMBERS},
        **{f"{name} as a number": ({name: 5}, name) for name in FLAGS},
    },
    "infill": {
        "input_extra that is no list": ({"input_extra": 5}, "input_extra"),
        "a chunk without text": ({"input_extra": [{"filename": "a"}]}, None),
        "a file without a name": ({"input_extra": [{"filename": 5, "text": "a"}]}, None),
        "top_k of the wrong type": ({"top_k": "much"}, "top_k"),
    },
    "responses": {
        "an answer before": ({"previous_response_id": "resp_1"}, None),
        "an item that is none": ({"input": [5]}, None),
        "tools that are no list": ({"tools": 5}, "tools"),
    },
    "messages": {"content of the wrong type": ({"messages": [{"role": "user", "content": 5}]}, None)},
    "embeddings": {
        "an encoding_format that is none": ({"encoding_format": "roman"}, None),
        "nothing in a list": ({"input": [None]}, "prompt"),
        "tokens there are not": ({"input": [999_999]}, None),
        "a text longer than the context": ({"input": "token1 " * 600}, "input"),
    },
    "rerank": {
        "a query of the wrong type": ({"query": 5}, "query"),
        "documents of the wrong type": ({"documents": [5]}, "documents"),
        "a document longer than the context": ({"documents": ["token1 " * 600]}, "documents"),
    },
    "tokenize": {
        "content of the wrong type": ({"content": [{}]}, None),
        "tokens there are not": ({"content": [10**6], "with_pieces": True}, None),
    },
    "detokenize": {"tokens there are not": ({"tokens": [10**6]}, None)},
    "apply_template": {"a message without content": ({"messages": [{"role": "user"}]}, None)},
    "chat.completions.input_tokens": {"tools that are no list": ({"tools": 5}, "tools")},
}
BEGINNINGS: dict[str, dict[str, Any]] = {
    **STARTS,
    "responses": {"model": "tiny", "input": "Hi"},
    "messages": {"model": "tiny", "messages": [HELLO], "max_tokens": 2},
    "embeddings": {"model": "embedder", "input": "token1"},
    "rerank": {"model": "reranker", "query": "token1", "documents": ["token2"]},
    "tokenize": {"model": "tiny", "content": "a"},
    "detokenize": {"model": "tiny", "tokens": [1]},
    "apply_template": {"model": "tiny", "messages": [HELLO]},
    "chat.completions.input_tokens": {"model": "tiny", "messages": [HELLO]},
}
# Models that cannot do what is asked: the endpoint, and the model.
UNABLE = [("infill", "real"), ("embeddings", "tiny"), ("rerank", "tiny"), ("rerank", "embedder")]


# What the engine finds out only while it answers.
LATE = {"model": "tiny", "prompt": "Once", "max_tokens": 4, **SURE, "grammar": "root ::= [z-a]+"}


def refused() -> list[tuple[Row, str | None]]:
    found = []
    for endpoint, table in FIELDS.items():
        limit = {"max_tokens": 2, **SURE} if endpoint in STARTS else {}
        for name, (fields, param) in table.items():
            found.append((Row(endpoint, name, {**BEGINNINGS[endpoint], **limit, **fields}), param))
    return found


def unable() -> list[Row]:
    return [Row(endpoint, model, {**BEGINNINGS[endpoint], "model": model}) for endpoint, model in UNABLE]


# Endpoints of a llama-server that the gateway has not: those that manage it, and other names of those it has.
MANAGING = [
    ("GET", "/props"),
    ("POST", "/props"),
    ("GET", "/slots"),
    ("POST", "/slots/0?action=save"),
    ("POST", "/slots/0?action=restore"),
    ("POST", "/slots/0?action=erase"),
    ("GET", "/lora-adapters"),
    ("POST", "/lora-adapters"),
    ("POST", "/v1/chat/completions/control"),
    ("DELETE", "/v1/stream?conv_id=a"),
    ("POST", "/v1/streams/lookup"),
]
NO_SUCH_STREAM = [("GET", "/v1/stream?conv_id=a")]  # which an engine without one says, too
ONLY_WHERE_ASKED_FOR = [("GET", "/tools"), ("POST", "/tools"), ("GET", "/cors-proxy"), ("POST", "/cors-proxy")]
OTHER_NAMES = [
    ("POST", "/completion"),
    ("POST", "/embedding"),
    ("POST", "/reranking"),
    ("POST", "/v1/reranking"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/systemone"),
    ("GET", "/v1/health"),
]
NOT_OFFERED = [*MANAGING, *NO_SUCH_STREAM, *ONLY_WHERE_ASKED_FOR, *OTHER_NAMES]
ENGINE_HAS = [*MANAGING, *OTHER_NAMES]
