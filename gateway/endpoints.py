"""What can be asked for: each inference endpoint, where the engine answers it, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import Protocol


@dataclass(frozen=True, slots=True)
class Endpoint:
    name: str
    path: str  # below /v1 and /api/v1/v1
    upstream_path: str
    protocol: Protocol
    required: str  # the field that holds the input
    required_types: tuple[type, ...]
    # Names under which the engine reads the longest answer, the one we write first; empty: nothing is generated.
    limit_fields: tuple[str, ...] = ()
    priced: bool = True  # False: answered without a slot, a hold or a usage record
    # Where the engine counts the tokens of such a body, and events of a stream that carry no token.
    count_path: str = ""
    bare_events: int = 0

    @property
    def generates(self) -> bool:
        return bool(self.limit_fields)


_INPUT = (str, list)

ENDPOINTS: dict[str, Endpoint] = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint(
            "chat.completions",
            "/chat/completions",
            "/v1/chat/completions",
            Protocol.OPENAI,
            "messages",
            (list,),
            ("max_tokens", "max_completion_tokens", "n_predict"),
            count_path="/v1/chat/completions/input_tokens",
            bare_events=1,
        ),
        Endpoint(
            "completions",
            "/completions",
            "/v1/completions",
            Protocol.OPENAI,
            "prompt",
            _INPUT,
            ("max_tokens", "max_completion_tokens", "n_predict"),
            count_path="/tokenize",
        ),
        Endpoint(
            "responses",
            "/responses",
            "/v1/responses",
            Protocol.RESPONSES,
            "input",
            _INPUT,
            ("max_output_tokens", "max_tokens", "max_completion_tokens", "n_predict"),
            count_path="/v1/responses/input_tokens",
            bare_events=4,
        ),
        Endpoint(
            "messages",
            "/messages",
            "/v1/messages",
            Protocol.ANTHROPIC,
            "messages",
            (list,),
            ("max_tokens", "max_completion_tokens", "n_predict"),
            count_path="/v1/messages/count_tokens",
            bare_events=2,
        ),
        Endpoint("embeddings", "/embeddings", "/v1/embeddings", Protocol.OPENAI, "input", _INPUT),
        Endpoint("rerank", "/rerank", "/v1/rerank", Protocol.OPENAI, "documents", (list,)),
        Endpoint(
            "messages.count_tokens",
            "/messages/count_tokens",
            "/v1/messages/count_tokens",
            Protocol.ANTHROPIC,
            "messages",
            (list,),
            priced=False,
        ),
        Endpoint("tokenize", "/tokenize", "/tokenize", Protocol.OPENAI, "content", (str,), priced=False),
        Endpoint("detokenize", "/detokenize", "/detokenize", Protocol.OPENAI, "tokens", (list,), priced=False),
    )
}
