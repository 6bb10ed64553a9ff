"""A slot whose client left before its answer began is free when the engine says so.

llama-server looks after a client only when it has nothing else to tell anybody, so what somebody leaves behind in the middle of a
long prompt goes on beside the answers of others, until its first token. Given away at once, the slot would be one that the engine
does not have: whoever got it would wait inside the engine, where no queue is fair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain, repeat

from gateway import upstream
from gateway.slots import Lease

# Seconds before the first looks. Further ones are rare: each is an answer of the engine, which puts off its own look.
PAUSES = (0.1, 1.0)
PAUSE = 2.0
MOST_LOOKS = 300  # then it hangs, and the supervisor will see to it

_tasks: set[asyncio.Task[None]] = set()


def release_when_idle(lease: Lease) -> None:
    """Returns at once."""
    lease.is_left()
    task = asyncio.get_running_loop().create_task(_release(lease))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _release(lease: Lease) -> None:
    try:
        for pause in _pauses():
            await asyncio.sleep(pause)
            if not await _still_works(lease):
                return
    finally:
        lease.release()


def _pauses() -> Iterator[float]:
    return chain(PAUSES, repeat(PAUSE, MOST_LOOKS))


async def _still_works(lease: Lease) -> bool:
    """Whether the engine has as many requests as we think that it has from all web processes, this one included."""
    replica = lease.replica
    try:
        under_way = await upstream.requests_under_way(replica.view) if replica.serves else None
    except TimeoutError:
        return True
    return under_way is not None and under_way >= replica.busy + replica.member.elsewhere
