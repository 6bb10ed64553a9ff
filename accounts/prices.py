"""What a model's tokens cost, and what may be asked of it in a minute. ``TOKEN_RATE`` is the price of a model without its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from accounts.limits import Limit
from accounts.models import ModelPolicy
from llmplatform.lib import audit

LARGEST_PRICE = 10**9  # micro-credits a token: keeps every sum inside 64 bits
PRICES = ("prompt_price", "cached_price", "completion_price")
NO_LIMIT = Limit("")
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-credits for one token of each kind."""

    prompt: int
    cached: int
    completion: int

    @property
    def is_free(self) -> bool:
        return not (self.prompt or self.cached or self.completion)

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
        """``cached_tokens`` are those of the prompt that the engine had read before."""
        cached = min(cached_tokens, prompt_tokens)
        return (prompt_tokens - cached) * self.prompt + cached * self.cached + completion_tokens * self.completion

    def upper_bound(self, prompt_bound: int, max_tokens: int) -> int:
        return prompt_bound * max(self.prompt, self.cached) + max_tokens * self.completion

    def affordable_tokens(self, money: int, prompt_bound: int, wanted: int) -> int:
        """How many of the ``wanted`` tokens of an answer ``money`` pays for; below 0 when the prompt alone is too much."""
        left = money - self.upper_bound(prompt_bound, 0)
        if left < 0:
            return -1
        return min(wanted, left // self.completion) if self.completion else wanted


@dataclass(frozen=True, slots=True)
class Policy:
    """A model's price, and what may be asked of it by everybody together."""

    price: Price
    limit: Limit = NO_LIMIT


def default_price() -> Price:
    return _same_for_all(settings.TOKEN_PRICE)


@lru_cache(maxsize=8)
def _same_for_all(rate: int) -> Price:
    return Price(rate, rate, rate)


def policies() -> dict[str, Policy]:
    """Of every model that has one of its own. Models are named ones, so this is small."""
    return {row.model_name: _policy(row) for row in ModelPolicy.objects.all()}


def default_policy() -> Policy:
    return Policy(default_price())


def _policy(row: ModelPolicy) -> Policy:
    rate = settings.TOKEN_PRICE
    prompt = rate if row.prompt_price is None else row.prompt_price
    price = Price(
        prompt,
        prompt if row.cached_price is None else row.cached_price,
        rate if row.completion_price is None else row.completion_price,
    )
    limits = (row.requests_per_minute, row.tokens_per_minute, row.concurrent_requests)
    return Policy(price, Limit(f"model:{row.model_name}", *limits) if any(limits) else NO_LIMIT)


def set_policy(model_name: str, changes: Mapping[str, int | None]) -> ModelPolicy:
    """``changes``: prices in micro-credits a token (None: TOKEN_RATE) and limits (0: none), as the columns are named.

    Raises ValidationError with messages per field. Running requests keep the price they began with.
    """
    errors = {}
    for name, value in changes.items():
        if name not in PRICES + LIMITS:
            raise TypeError(name)
        high = LARGEST_PRICE if name in PRICES else 2**31 - 1
        if (value is None and name in LIMITS) or (value is not None and not 0 <= value <= high):
            errors[name] = _("A whole number from 0 to %(high)d.") % {"high": high}
    if errors:
        raise ValidationError(errors)
    with transaction.atomic():
        known = ModelPolicy.objects.filter(model_name=model_name).first()
        before = audit.fields_of(known) if known else None
        row, created = ModelPolicy.objects.update_or_create(model_name=model_name, defaults=dict(changes))
        audit.on(row, "create" if created else "update", before, audit.fields_of(row))
    return row
