"""What is charged when the engine cannot be asked any more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gateway import counting
from gateway.bodies import Plan
from gateway.usage import TokenCount


class Exchange:
    """As much of one as counting looks at."""

    def __init__(self, held: int = 400) -> None:
        self.plan = Plan("m", False, 1, None, prompt_bound=400)
        self.prompt_bound = held
        self.request = SimpleNamespace(request_id="req-1")
        self.settled: list[tuple[str, int, int, int]] = []

    def settle(self, outcome: str, status: int, count: TokenCount) -> None:
        self.settled.append((outcome, status, count.prompt, count.completion))


async def never() -> TokenCount:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(("held", "charged"), [(400, 100), (64, 64)])
async def test_the_process_ends_before_the_count_is_known(
    monkeypatch: pytest.MonkeyPatch, held: int, charged: int
) -> None:
    """An estimate, and never more than was held for the prompt."""
    monkeypatch.setattr(counting.billing, "before_exit", None)
    exchange = Exchange(held)
    counting.later(exchange, never(), "cancelled", delivered=7)
    counting.billing.before_exit()
    assert exchange.settled == [("cancelled", 499, charged, 7)]


async def test_the_count_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting.billing, "before_exit", None)

    async def fails() -> TokenCount:
        raise RuntimeError

    exchange = Exchange()
    counting.later(exchange, fails(), "failed", delivered=3)
    [counting_task] = [task for task in counting._pending if counting._pending[task].exchange is exchange]
    await asyncio.wait([counting_task])
    await asyncio.sleep(0)  # its callback
    assert exchange.settled == [("failed", 502, 100, 3)]
