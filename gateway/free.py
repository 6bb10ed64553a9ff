"""Requests that cost nothing and need no slot: counting and cutting text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import monotonic

import aiohttp

from gateway import errors, upstream
from gateway.breaker import ATTEMPTS
from gateway.endpoints import Endpoint
from gateway.routing import ReplicaSlots
from gateway.slots import ModelPool, OnQueue, SlotRequest, Standing
from gateway.upstream import ReplicaFailed


@dataclass(frozen=True, slots=True)
class FreeAnswer:
    """``waited``: seconds, for a replica; ``kind``: of the body."""

    replica: ReplicaSlots
    standing: Standing
    waited: float
    kind: str
    body: bytes


async def ask(
    pool: ModelPool, endpoint: Endpoint, raw: bytes, wanted: SlotRequest, on_queue: OnQueue | None
) -> FreeAnswer:
    """Raises GatewayError."""
    failed: frozenset[int] = frozenset()
    first, waited = None, 0.0
    while True:
        began = monotonic()
        replica, standing = await _replica_for(pool, replace(wanted, excluded=failed), on_queue)
        first, waited = first or standing, waited + monotonic() - began
        try:
            return FreeAnswer(replica, first, waited, *await _answer(replica, endpoint, raw))
        except ReplicaFailed as error:
            if error.unreachable:
                pool.failed(replica, unreachable=True)
            failed |= {replica.view.id}
            if len(failed) >= ATTEMPTS or not pool.router.budget.spend():
                raise errors.upstream_error() from error


async def _replica_for(pool: ModelPool, wanted: SlotRequest, on_queue: OnQueue | None) -> tuple[ReplicaSlots, Standing]:
    replica = pool.any_replica(wanted.excluded)
    if replica is not None:
        return replica, Standing()
    # Its turn comes with the others', and then it needs the slot no longer.
    lease = await pool.take(wanted, on_queue)
    lease.release()
    return lease.replica, lease.standing


async def _answer(replica: ReplicaSlots, endpoint: Endpoint, raw: bytes) -> tuple[str, bytes]:
    try:
        response = await upstream.open_answer(replica.view, endpoint.upstream_path, raw)
        return response.headers.get("Content-Type", "application/json"), await upstream.whole_answer(response)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ReplicaFailed(repr(error)) from error
