"""What the inference path tells Prometheus, in the default registry."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Histogram

from accounts.quota import UsageFigures

_WAITS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

REQUESTS = Counter("llm_requests", "Requests answered", ["endpoint", "model", "status"])
FIRST_TOKEN = Histogram(
    "llm_first_token_seconds", "From a request's arrival to the first byte of its answer", ["model"], buckets=_WAITS
)
QUEUE_WAIT = Histogram("llm_queue_wait_seconds", "Waited for a free slot", ["model"], buckets=_WAITS)
DURATION = Histogram("llm_request_seconds", "From a request's arrival to its end", ["model"], buckets=_WAITS)
PROMPT_TOKENS = Counter("llm_prompt_tokens", "Tokens of prompts", ["model"])
CACHED_TOKENS = Counter("llm_cached_prompt_tokens", "Tokens of prompts that a replica remembered", ["model"])
EXPECTED_CACHED_TOKENS = Counter(
    "llm_expected_cached_prompt_tokens",
    "Tokens of prompts that the replica was chosen for, as it should remember them",
    ["model"],
)
COMPLETION_TOKENS = Counter("llm_completion_tokens", "Tokens of answers", ["model"])
RETRIES = Counter("llm_retries", "Requests sent to another replica before the first byte", ["model"])
RESUMED = Counter(
    "llm_resumed", "Answers that another replica went on with, or the same one when it was back", ["model"]
)


class _OfModel:
    """Of one model: looking up a label takes longer than counting."""

    __slots__ = ("cached", "completion", "duration", "first_token", "prompt", "queue_wait")

    def __init__(self, model: str) -> None:
        self.queue_wait, self.duration = QUEUE_WAIT.labels(model), DURATION.labels(model)
        self.first_token = FIRST_TOKEN.labels(model)
        self.prompt, self.cached = PROMPT_TOKENS.labels(model), CACHED_TOKENS.labels(model)
        self.completion = COMPLETION_TOKENS.labels(model)


_of_model = lru_cache(maxsize=1000)(_OfModel)
_requests = lru_cache(maxsize=10_000)(REQUESTS.labels)


def observe(usage: UsageFigures) -> None:
    """A request that came to its end."""
    of_model = _of_model(usage.model_name)
    _requests(usage.endpoint, usage.model_name, str(usage.status)).inc()
    of_model.queue_wait.observe(usage.queue_ms / 1000)
    of_model.duration.observe(usage.duration_ms / 1000)
    if usage.first_token_ms is not None:
        of_model.first_token.observe(usage.first_token_ms / 1000)
    of_model.prompt.inc(usage.prompt_tokens)
    of_model.cached.inc(usage.cached_tokens)
    of_model.completion.inc(usage.completion_tokens)
