"""What of the engine's own fields a request may not have, and how much of others. Pure.

All the rest goes on as it came, unknown fields too: the engine says itself what it does not take. ``docs/conformance.md`` has
each of these with its reason, and what every other field does; a test holds it against the tables here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

from gateway import errors

# They choose another's slot or what another's conversation left in one, the adapters all slots share, or what only the
# administrator sets.
NOT_THEIRS = frozenset(
    {
        *("id_slot", "slot_id", "n_keep", "n_discard", "lora", "control_vectors", "conv_id", "sse_ping_interval"),
        *("speculative.type", "speculative.types", "verbose", "n_cache_reuse"),
    }
)
# The engine tells them to itself, from its template. It believes them: some wrong ones end its process.
ITS_OWN = frozenset(
    {
        *("chat_format", "chat_parser", "generation_prompt", "grammar_lazy", "grammar_triggers", "grammar_type"),
        *("message_delimiters", "preserved_tokens", "thinking_forced_open", "reasoning_in_content"),
        *("reasoning_budget_start_tag", "reasoning_budget_end_tag", "reasoning_budget_end_tags"),
    }
)
REFUSED = NOT_THEIRS | ITS_OWN
REFUSED_AT = {"rerank": frozenset({"texts"})}  # by it the answer has another form, without what was used

# Of a template: in it they would take the place of what was checked, counted and begun with the model's own system prompt.
ARGUMENTS = "chat_template_kwargs"
NOT_ARGUMENTS = frozenset({"messages", "tools"})

MOST_PROBABILITIES = 100
MOST_LOOKED_BACK = 2**20  # tokens, each of which takes memory in every sampler
MOST_DRAFTED = 64
WHOLE = 2**31 - 1
# Whole numbers, lowest and highest.
NUMBERS: dict[str, tuple[int, int]] = {
    "n": (1, 8),
    "n_cmpl": (1, 8),
    "n_probs": (0, MOST_PROBABILITIES),
    "logprobs": (0, MOST_PROBABILITIES),  # in a chat it is true or false
    "top_logprobs": (0, MOST_PROBABILITIES),
    "repeat_last_n": (-1, MOST_LOOKED_BACK),
    "dry_penalty_last_n": (-1, MOST_LOOKED_BACK),
    "speculative.n_max": (0, MOST_DRAFTED),
    "speculative.n_min": (0, MOST_DRAFTED),
    "top_n": (0, WHOLE),
}
# Entries of a list or an object.
LENGTHS = {"stop": 128, "stop_sequences": 128, "samplers": 16, "dry_sequence_breakers": 16, "logit_bias": 10_000}
LETTERS = frozenset({"samplers"})  # each letter of a text is an entry too
MOST_OF_A_SAMPLER = 2
MOST_BIASED_TEXT = 10_000  # characters, each of which may be a token


def check(endpoint_name: str, body: Mapping[str, Any]) -> None:
    """Raises GatewayError naming the first field that cannot be taken."""
    refused = REFUSED.intersection(body) | REFUSED_AT.get(endpoint_name, frozenset()).intersection(body)
    if refused:
        raise errors.invalid(_("This field is not allowed here."), min(refused))
    arguments = body.get(ARGUMENTS)
    if isinstance(arguments, Mapping) and not NOT_ARGUMENTS.isdisjoint(arguments):
        raise errors.invalid(_("This field is not allowed here."), f"{ARGUMENTS}.{min(NOT_ARGUMENTS & set(arguments))}")
    for name, value in body.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise errors.invalid(_("“%(name)s” must be a finite number."), name, name=name)
        if value is None:
            continue
        if name in NUMBERS and not (name == "logprobs" and isinstance(value, bool)):
            whole(body, name, *NUMBERS[name])
        elif name in LENGTHS:
            _check_length(name, value)


def whole(body: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """The field, which must be a whole number between them."""
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        template = _("“%(name)s” must be a whole number from %(low)d to %(high)d.")
        raise errors.invalid(template, name, name=name, low=low, high=high)
    return value


def _check_length(name: str, value: Any) -> None:
    is_list = isinstance(value, list | dict) or (name in LETTERS and isinstance(value, str))
    if is_list and (len(value) > LENGTHS[name] or _has_too_much_in_it(name, value)):
        raise errors.invalid(_("“%(name)s” is too long a list."), name, name=name)


def _has_too_much_in_it(name: str, value: Any) -> bool:
    if name == "samplers":  # some look at the whole vocabulary before the first token
        return any(list(value).count(one) > MOST_OF_A_SAMPLER for one in value)
    return name == "logit_bias" and _biased_text(value) > MOST_BIASED_TEXT


def _biased_text(value: Any) -> int:
    """Characters of words, which the engine cuts into tokens; "17" is the token with that number."""
    names = value if isinstance(value, dict) else [pair[0] for pair in value if isinstance(pair, list) and pair]
    return sum(len(name) for name in names if isinstance(name, str) and not name.isdecimal())
