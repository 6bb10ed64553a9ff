"""Whatever is sent as a body: it is refused as the caller's fault, or bytes for the engine come of it.

LLM_FUZZ_EXAMPLES=20000 python -m pytest gateway/tests/test_any_body.py        the long form
"""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import bodies, dialect, errors, naming, prompts, resumption, system_prompt
from gateway.endpoints import ENDPOINTS, Endpoint
from gateway.errors import GatewayError

EXAMPLES = int(os.environ.get("LLM_FUZZ_EXAMPLES") or 300)
WORDS = st.sampled_from(
    ["", "x", "user", "system", "assistant", "tool", "function", "text", "image_url", "data:image/png;base64,AA==", "file",
     "http://example.org/a", "json_schema", "json_object", "named", "\ud800", "a\0b", "word " * 40]
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2, 7, 2**31, 10**30, 0.5, -1e300, 1e300, 1e-300])
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS
NAMES = st.sampled_from(
    ["role", "content", "type", "text", "name", "function", "image_url", "url", "file", "schema", "format", "arguments",
     "tool_calls", "prompt_string", "multimodal_data"]
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
MESSAGE = st.fixed_dictionaries(
    {"role": WORDS | JSON, "content": st.text(max_size=20) | JSON}, optional={"tool_calls": JSON, "type": JSON}
)
GIVEN = st.text(max_size=20) | st.lists(MESSAGE, min_size=1, max_size=4) | st.lists(st.text(), max_size=3) | JSON
FIELDS = {
    **dict.fromkeys(["messages", "prompt", "input", "content", "documents", "tokens", "query"], GIVEN),
    **dict.fromkeys(["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "n"], NUMBERS | JSON),
    **dict.fromkeys(["tool_choice", "response_format", "text", "stream_options", "system", "instructions"], JSON),
    "tools": st.lists(st.dictionaries(NAMES, JSON, max_size=3), max_size=3) | JSON,
    "stream": st.booleans() | JSON,
    "model": st.just("m") | JSON,
    "temperature": NUMBERS | JSON,
    "return_progress": JSON,
}
BODIES = st.fixed_dictionaries({}, optional=FIELDS)


def bytes_for_the_engine(endpoint: Endpoint, raw: bytes) -> bytes:
    """What ``infer`` makes of a body before it waits for a slot. Raises GatewayError."""
    parsed = bodies.parse(raw)
    body = dialect.understood(endpoint, parsed)
    plan = bodies.check(endpoint, body)
    naming.beginning(body)
    if system_prompt.belongs_into(endpoint, body):
        body, _tokens = system_prompt.put_into(endpoint, body, "Be kind.")
    resumption.is_possible(endpoint, body, plan)
    resumption.is_structured(body)
    prompts.chain(endpoint, body)
    assert 0 <= plan.likely_read(2048) <= plan.most_read(2048)
    return bodies.with_limit(endpoint, body, raw if body is parsed else None, plan, 16)


def refusal(endpoint: Endpoint, raw: bytes) -> GatewayError | None:
    try:
        made = bytes_for_the_engine(endpoint, raw)
    except GatewayError as error:
        return error
    limits = {json.loads(made).get(name) for name in endpoint.limit_fields} - {None}
    assert all(0 <= limit <= 16 for limit in limits)
    return None


@settings(max_examples=EXAMPLES, deadline=None)
@given(body=BODIES, endpoint=st.sampled_from(list(ENDPOINTS.values())))
def test_any_object(body: dict[str, Any], endpoint: Endpoint) -> None:
    error = refusal(endpoint, json.dumps(body).encode())
    if error is not None:
        assert 400 <= error.status < 500
        assert json.loads(errors.as_body(error, endpoint.protocol))["error"]["message"]


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(raw=st.binary(max_size=60) | BODIES.map(lambda body: json.dumps(body).encode()[:-1]))
def test_any_bytes(raw: bytes) -> None:
    for endpoint in ENDPOINTS.values():
        error = refusal(endpoint, raw)
        assert error is not None
        assert error.status == 400
