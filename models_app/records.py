"""The supervisor's writes: one row per replica. Nothing else writes these rows."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from asgiref.sync import sync_to_async
from django.db import Error as DatabaseError
from django.db import IntegrityError
from django.utils import timezone

from llmplatform.lib import knock
from models_app.models import Loading, ModelConfig, Replica
from models_app.states import State

logger = logging.getLogger(__name__)


class ReplicaRow:
    """A replica's row, written whenever something changes. What the database did not take is written with the next change or
    ``flush``: a locked or full database must not stop models from running."""

    def __init__(self, replica_id: int) -> None:
        self.id = replica_id
        self.state = State.PENDING
        self._unsaved: dict[str, Any] = {}
        self._writing = asyncio.Lock()  # the runner writes and the supervisor flushes

    async def set_state(self, state: State, **fields: Any) -> bool:
        if state is not self.state or "state" in self._unsaved:
            fields["since"] = timezone.now()
        self.state = state
        written = await self.write(state=state, **fields)
        knock.knock(knock.WEB)
        return written

    async def write(self, **fields: Any) -> bool:
        """Whether the database has taken it."""
        self._unsaved.update(fields)
        return await self.flush()

    async def flush(self) -> bool:
        async with self._writing:
            fields, self._unsaved = self._unsaved, {}
            try:
                if fields:
                    await _update(self.id, fields)
            except DatabaseError as error:
                self._unsaved = {**fields, **self._unsaved}
                logger.warning("replica %d could not be recorded: %s", self.id, error)
                return False
        return True


@sync_to_async
def _update(replica_id: int, fields: dict[str, Any]) -> None:
    Replica.objects.filter(pk=replica_id).update(**fields)


@sync_to_async
def rows_of(node: str) -> list[Replica]:
    return list(Replica.objects.filter(node=node).select_related("model"))


@sync_to_async
def open_row(model_id: int, number: int, node: str) -> int | None:
    """The row of a replica that is about to start, made or taken over; None when the model is gone meanwhile."""
    fields = {
        "node": node,
        "state": State.PENDING,
        "since": timezone.now(),
        "port": None,
        "pid": None,
        "pid_started": None,
    }
    fields |= {"reason": None, "quick_failures": 0}
    if not ModelConfig.objects.filter(pk=model_id).exists():
        return None
    try:
        row, _created = Replica.objects.update_or_create(model_id=model_id, number=number, defaults=fields)
    except IntegrityError:  # deleted between the two queries
        return None
    return int(row.pk)


@sync_to_async
def note_loading(model_id: int, **fields: Any) -> None:
    """Of a model that is loaded when asked for; raises what the database raises."""
    Loading.objects.update_or_create(model_id=model_id, defaults=fields)


@sync_to_async
def delete(replica_ids: list[int]) -> None:
    Replica.objects.filter(pk__in=replica_ids).delete()
