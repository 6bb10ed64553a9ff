"""What ``cluster/stats`` shows of the inference path: of this process, from memory."""

from __future__ import annotations

from cluster import live
from gateway.models_directory import all_pools


def figures() -> dict[str, int]:
    pools = all_pools()
    busy, queued = sum(pool.busy for pool in pools), sum(pool.queued for pool in pools)
    return {"slots_in_use": busy, "queued": queued, "requests_under_way": busy + queued}


def register() -> None:
    live.register("gateway", figures)
