"""What this web process's gateway is doing now: for ``cluster/stats``, the console and Prometheus. Read from memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.models_directory import all_pools
from gateway.slots import ModelPool

RATE_SECONDS = 30

_seconds: deque[tuple[int, int]] = deque(maxlen=RATE_SECONDS + 1)  # (second, answer tokens in it)
_under_way = 0


def begun() -> None:
    global _under_way
    _under_way += 1


def ended(completion_tokens: int) -> None:
    """A paid request is over, however it ended."""
    global _under_way
    _under_way -= 1
    now = int(monotonic())
    tokens = completion_tokens
    if _seconds and _seconds[-1][0] == now:
        tokens += _seconds.pop()[1]
    _seconds.append((now, tokens))


def tokens_per_second() -> float:
    """Mean over the last seconds; tokens count when their request ends."""
    since = int(monotonic()) - RATE_SECONDS
    return round(sum(tokens for second, tokens in list(_seconds) if second > since) / RATE_SECONDS, 2)


def figures() -> dict[str, Any]:
    pools = all_pools()
    return {
        "requests_under_way": _under_way,
        "slots_in_use": sum(pool.busy for pool in pools),
        "slots": sum(pool.slots for pool in pools),
        "queued": sum(pool.queued for pool in pools),
        "tokens_per_second": tokens_per_second(),
    }


class LiveCollector(Collector):
    """Figures that are read when Prometheus asks."""

    def collect(self) -> Iterable[Metric]:
        pools = all_pools()
        yield GaugeMetricFamily("llm_requests_under_way", "Requests that have a slot or wait for one", _under_way)
        yield GaugeMetricFamily("llm_answer_tokens_per_second", "Mean over half a minute", tokens_per_second())
        yield _per_model(pools)
        yield from _per_replica(pools)


def _per_model(pools: list[ModelPool]) -> Metric:
    queued = GaugeMetricFamily("llm_requests_queued", "Requests that wait for a slot", labels=["model"])
    for pool in pools:
        queued.add_metric([pool.view.name], pool.queued)
    return queued


def _per_replica(pools: list[ModelPool]) -> Iterator[Metric]:
    labels = ["model", "replica"]
    busy = GaugeMetricFamily("llm_slots_busy", "Slots in use", labels=labels)
    elsewhere = GaugeMetricFamily("llm_slots_busy_elsewhere", "Slots that other web processes use", labels=labels)
    slots = GaugeMetricFamily("llm_slots", "Slots there are", labels=labels)
    for pool in pools:
        for replica in list(pool.replicas.values()):
            where = [pool.view.name, str(replica.view.number)]
            busy.add_metric(where, replica.busy)
            elsewhere.add_metric(where, replica.member.elsewhere)
            slots.add_metric(where, replica.view.slots)
    yield busy
    yield elsewhere
    yield slots
