"""Reading and checking request bodies. Pure: decides what goes to the engine and what the request may cost at most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from django.utils.translation import gettext_lazy as _

from gateway import constraints, errors, fields, media
from gateway.endpoints import Endpoint
from gateway.media import Media
from llmplatform.lib.json_bounds import is_too_complex

MAX_PROMPTS = 64
MAX_TOKENS = 2**31 - 1
COUNT_FIELDS = ("n", "n_cmpl")  # answers to one prompt; each takes a slot of its own
# What a chat template adds: around each message, and once (a default system prompt).
TOKENS_PER_MESSAGE = 12
TOKENS_PER_PROMPT = 80
TOKENS_PER_INPUT = 8  # what begins and ends a text that is embedded
TOKENS_PER_PAIR = (
    100  # what stands around a query and a document: separators, or the instruction of a reranker's template
)
BYTES_PER_TOKEN = 4  # a rough mean over languages, for what is estimated before the engine has told
FIGURES = ("stop", "timings")  # of an answer in llama.cpp's own format
FEW_BYTES_PER_TOKEN = 2
CONTEXT_STEP = 256  # the engine makes its context a multiple of it


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``."""
    if is_too_complex(raw):
        raise errors.invalid(_("The body is nested too deeply or has too many parts."))
    try:
        body = _decoder.decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise errors.invalid(_("The body is not valid JSON.")) from error
    if not isinstance(body, dict):
        raise errors.invalid(_("The body must be a JSON object."))
    return body


@dataclass(slots=True)
class Plan:
    """What a checked body asks for."""

    model: str  # as the client wrote it; "" for none
    stream: bool
    answers: int  # how many texts are generated: n, times the number of prompts
    asked_tokens: int | None  # longest single answer; None: the client leaves it to us
    prompt_bound: int  # no fewer tokens than the prompts really have
    prompts: int = 1  # how many texts are read, each by itself
    pictures: Media = media.NONE

    def likely_read(self, context: int | None) -> int:
        """About as many tokens as an engine reads for it, where nobody has told yet."""
        pictures = self.pictures
        words = max(0, self.prompt_bound - pictures.size - pictures.count * media.MOST_TOKENS)
        return min(words // BYTES_PER_TOKEN + pictures.count * media.USUAL_TOKENS, self.most_read(context))

    def most_read(self, context: int | None) -> int:
        """No fewer tokens than an engine can read for it; ``context``: the longest of its replicas', None if not known."""
        if context is None:
            return self.prompt_bound
        return min(self.prompt_bound, in_engine(context) * self.prompts)

    def may_exceed(self, context: int) -> bool:
        """Whether a prompt of text is so long that counting it is worth the while. Bytes alone prove nothing: a token may be
        long, and a chat's template may leave messages out."""
        return self.prompts == 1 and not self.pictures.count and self.prompt_bound > FEW_BYTES_PER_TOKEN * context


def in_engine(context: int) -> int:
    return -(-context // CONTEXT_STEP) * CONTEXT_STEP


def check(endpoint: Endpoint, body: Mapping[str, Any]) -> Plan:
    """Raises GatewayError naming the first field that cannot be taken."""
    model = "" if body.get("model") is None else body["model"]
    if not isinstance(model, str):
        raise errors.invalid(_("“model” must be the name of a model."), "model")
    fields.check(endpoint.name, body)
    constraints.check(body)
    _check_input(endpoint, body)
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise errors.invalid(_("“stream” must be true or false."), "stream")
    prompts, found = _prompts(endpoint, body), media.check(body)
    return Plan(
        model,
        bool(stream),
        _answers(body) * prompts if endpoint.generates else 1,
        _asked_tokens(endpoint, body),
        _prompt_bound(endpoint, body, prompts) + found.count * media.MOST_TOKENS,
        prompts,
        found,
    )


def _check_input(endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    name = endpoint.required
    value = body.get(name)
    if not isinstance(value, endpoint.required_types) or (name != "tokens" and not value and value != ""):
        raise errors.invalid(_("“%(name)s” is missing or of the wrong type."), name, name=name)
    if name == "messages" and not all(isinstance(message, dict) for message in cast(list[Any], value)):
        raise errors.invalid(_("“%(name)s” must be a list of objects."), name, name=name)
    if name == "tokens" and not all(type(token) is int and token >= 0 for token in cast(list[Any], value)):
        raise errors.invalid(_("“%(name)s” must be a list of tokens."), name, name=name)
    for other in (*endpoint.also_required, *(name for name in endpoint.may_be_texts if body.get(name) is not None)):
        if not isinstance(body.get(other), str):
            raise errors.invalid(_("“%(name)s” is missing or of the wrong type."), other, name=other)


def _answers(body: Mapping[str, Any]) -> int:
    return max([1, *(int(body[name]) for name in COUNT_FIELDS if body.get(name) is not None)])


def _prompts(endpoint: Endpoint, body: Mapping[str, Any]) -> int:
    """How many texts are read. A list of prompts gives one answer each; one with numbers (tokens) in it is one prompt."""
    given = body.get(endpoint.prompts_field) if endpoint.prompts_field else None
    if not isinstance(given, list) or not given or any(isinstance(part, int) for part in given):
        return 1
    if endpoint.generates and len(given) > MAX_PROMPTS:
        raise errors.invalid(_("“%(name)s” is too long a list."), "prompt", name="prompt")
    return len(given)


def _asked_tokens(endpoint: Endpoint, body: Mapping[str, Any]) -> int | None:
    # Which of several names wins is the engine's affair: the largest is what the request may cost.
    found = [fields.whole(body, name, 0, MAX_TOKENS) for name in endpoint.limit_fields if body.get(name) is not None]
    return max(found) if found else None


_NOT_PROMPT = frozenset({"model", "stream", "stream_options", "user", "metadata", "grammar", "json_schema"})


def _prompt_bound(endpoint: Endpoint, body: Mapping[str, Any], prompts: int) -> int:
    """A token stands for at least one byte, or for one number of a prompt given in tokens."""
    total = size_of([value for name, value in body.items() if name not in _NOT_PROMPT])
    if endpoint.name == "rerank":
        # The query is read again with each document.
        return total + prompts * TOKENS_PER_PAIR + (prompts - 1) * size_of([body.get("query")])
    if not endpoint.generates:
        return total + prompts * TOKENS_PER_INPUT
    parts = body.get(endpoint.parts_field)
    return total + TOKENS_PER_PROMPT * prompts + (TOKENS_PER_MESSAGE * len(parts) if isinstance(parts, list) else 0)


def size_of(pending: list[Any]) -> int:
    """Bytes of text, and one for each part."""
    total = 0
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            total += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, dict):
            total += len(value)
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            total += len(value)
            pending.extend(value)
    return total


def with_limit(endpoint: Endpoint, body: dict[str, Any], raw: bytes | None, plan: Plan, limit: int) -> bytes:
    """The bytes for the engine: the client's own where nothing must change."""
    if not endpoint.generates or (plan.asked_tokens is not None and plan.asked_tokens <= limit):
        return raw if raw is not None else write(body)
    named = [name for name in endpoint.limit_fields if name in body]
    if raw is not None and not named:
        # In front of the client's first field: the rest of the bytes stays as it came.
        return b'{"%s":%d,%s' % (endpoint.limit_fields[0].encode(), limit, raw.lstrip()[1:])
    capped = {name: min(body[name], limit) for name in named if body[name] is not None}
    changed = {name: value for name, value in body.items() if name not in named}
    return json.dumps({**changed, **(capped or {endpoint.limit_fields[0]: limit})}).encode()


def with_figures(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """Where a client chooses what the answer has: with what tells its tokens and end. The same object when nothing is missing."""
    chosen = body.get("response_fields") if endpoint.own_format else None
    if not chosen:
        return body
    if not isinstance(chosen, list) or not all(isinstance(name, str) for name in chosen):
        raise errors.invalid(_("“%(name)s” must be a list of texts."), "response_fields", name="response_fields")
    missing = [name for name in FIGURES if name not in chosen]
    return {**body, "response_fields": [*chosen, *missing]} if missing else body


def write(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()
