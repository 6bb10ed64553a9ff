"""What only the running processes know: whether the supervisor lives, what the gateway does right now."""

from __future__ import annotations

from dataclasses import dataclass

from cluster import live
from llmplatform.service import run_folder


@dataclass(frozen=True)
class GatewayNow:
    under_way: int
    waiting: int
    tokens_per_second: float  # mean of the last half minute


def gateway_now() -> GatewayNow:
    """Of this web process, which is the one that carries the requests."""
    figures = live.figures("gateway")
    return GatewayNow(
        under_way=figures.get("requests_under_way", 0),
        waiting=figures.get("queued", 0),
        tokens_per_second=figures.get("tokens_per_second", 0.0),
    )


def supervisor_alive() -> bool:
    running = run_folder.read()
    return running is not None and "supervisor" in running.children and running.children["supervisor"].alive()
