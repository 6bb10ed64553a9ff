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
    also_required: tuple[str, ...] = ()  # texts beside it
    may_be_texts: tuple[str, ...] = ()  # as those, but they may be missing
    prompts_field: str = ""  # may hold a list of texts that are read one by one
    parts_field: str = "messages"  # a list of what is read together
    priced: bool = True  # False: answered without a slot, a hold or a usage record
    # Where a chat has its system prompt, apart from messages that have that role.
    system_field: str = ""
    splits_traffic: bool = True  # False: another model's answer would mean something else
    # Where the engine counts the tokens of such a body.
    count_path: str = ""
    # What stands in each event of a stream that carries a token, unless the other does too.
    piece: bytes = b'"finish_reason":null'
    bare: bytes = b""
    # What stands in the event that ends an answer, once for each.
    finish: bytes = b'"finish_reason":"'
    own_format: bool = False  # llama.cpp's, out of which ``response_fields`` chooses

    @property
    def generates(self) -> bool:
        return bool(self.limit_fields)


_INPUT = (str, list)
_PROMPT = (str, list, dict)  # an object is llama.cpp's own form, with pictures beside the text

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
            system_field="messages",
            bare=b'"role":"assistant"',
        ),
        Endpoint(
            "completions",
            "/completions",
            "/v1/completions",
            Protocol.OPENAI,
            "prompt",
            _PROMPT,
            ("max_tokens", "max_completion_tokens", "n_predict"),
            prompts_field="prompt",
            count_path="/tokenize",
        ),
        Endpoint(
            "infill",
            "/infill",
            "/infill",
            Protocol.OPENAI,
            "input_prefix",
            (str,),
            ("n_predict", "max_tokens", "max_completion_tokens"),
            also_required=("input_suffix",),
            may_be_texts=("prompt",),
            parts_field="input_extra",
            count_path="/tokenize",
            piece=b'"stop":false',
            finish=b'"stop":true',
            own_format=True,
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
            system_field="instructions",
            piece=b'.delta","',
            finish=b'"type":"response.completed"',
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
            system_field="system",
            piece=b'"content_block_delta"',
            finish=b'"stop_reason":"',
        ),
        Endpoint(
            "embeddings",
            "/embeddings",
            "/v1/embeddings",
            Protocol.OPENAI,
            "input",
            _PROMPT,
            prompts_field="input",
            splits_traffic=False,
        ),
        Endpoint("rerank", "/rerank", "/v1/rerank", Protocol.OPENAI, "documents", (list,), prompts_field="documents"),
        Endpoint(
            "messages.count_tokens",
            "/messages/count_tokens",
            "/v1/messages/count_tokens",
            Protocol.ANTHROPIC,
            "messages",
            (list,),
            priced=False,
            system_field="system",
        ),
        Endpoint(
            "chat.completions.input_tokens",
            "/chat/completions/input_tokens",
            "/v1/chat/completions/input_tokens",
            Protocol.OPENAI,
            "messages",
            (list,),
            priced=False,
            system_field="messages",
        ),
        Endpoint(
            "responses.input_tokens",
            "/responses/input_tokens",
            "/v1/responses/input_tokens",
            Protocol.OPENAI,
            "input",
            _INPUT,
            priced=False,
            system_field="instructions",
        ),
        # Without the model's own system prompt: what comes of it goes on to "completions", which never gets it.
        Endpoint(
            "apply_template",
            "/apply-template",
            "/apply-template",
            Protocol.OPENAI,
            "messages",
            (list,),
            priced=False,
            splits_traffic=False,
        ),
        Endpoint(
            "tokenize",
            "/tokenize",
            "/tokenize",
            Protocol.OPENAI,
            "content",
            _INPUT,
            priced=False,
            splits_traffic=False,
        ),
        Endpoint(
            "detokenize",
            "/detokenize",
            "/detokenize",
            Protocol.OPENAI,
            "tokens",
            (list,),
            priced=False,
            splits_traffic=False,
        ),
    )
}
