"""Does the downloads that are wanted: tasks within the supervisor, or within ``pullmodel`` where no supervisor runs.

Whoever does them holds a lock, so that there is one at a time in a folder; it is free at once when its process dies, and the next
one goes on from what lies there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

import httpx
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import close_old_connections
from django.utils import timezone
from filelock import FileLock, Timeout

from models_app.downloads import selectors, staging
from models_app.downloads.fetch import Timing
from models_app.downloads.models import Download
from models_app.downloads.pull import Pull
from models_app.downloads.transport import new_client

logger = logging.getLogger(__name__)
LOOK = 1.0
CLEAN_UP = 3600.0
AT_ONCE = 2  # more would only share the same line


class Worker:
    """``await Worker().run(stop)``. ``only``: nothing but this download."""

    def __init__(self, timing: Timing | None = None, only: int | None = None) -> None:
        self.timing, self.only = timing or Timing(), only
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._client: httpx.AsyncClient | None = None
        self._lock: FileLock | None = None
        self._cleaned = float("-inf")

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``. Never raises: whatever goes wrong here must not harm the supervisor."""
        try:
            while not stop.is_set():
                await self._look()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await stop.wait()
        finally:
            await self._close()

    async def _look(self) -> None:
        try:
            if self._lock is not None or self.acquire():
                await self._step()
        except DatabaseError as error:
            logger.warning("downloads: the database does not answer: %s", error)
            await sync_to_async(close_old_connections)()
        except Exception:
            logger.exception("downloads: one look failed; the next one follows")

    def acquire(self) -> bool:
        """Whether it is this process that does the downloads."""
        settings.RUN_DIR.mkdir(parents=True, exist_ok=True)
        lock = FileLock(settings.RUN_DIR / "downloads.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._lock = lock
        return True

    async def _step(self) -> None:
        wanted = {row.pk: row for row in await sync_to_async(selectors.open_downloads)()}
        if self.only is None:
            await self._clean_up()
        for pk in [pk for pk, task in self._tasks.items() if task.done()]:
            del self._tasks[pk]
        for pk, row in wanted.items():
            if self.only not in {None, pk}:
                continue
            if row.cancelled:
                await self._cancel(row)
            elif pk not in self._tasks:
                self._tasks[pk] = asyncio.create_task(self._pull(row), name=f"download {pk}")

    async def _pull(self, row: Download) -> None:
        if self._client is None:
            self._client = new_client(self.timing.stall)
        async with self._turn:
            await Pull(row, self._client, self._locks, self.timing).run()

    async def _cancel(self, row: Download) -> None:
        task = self._tasks.pop(row.pk, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        rows = Download.objects.filter(pk=row.pk).exclude(state=Download.State.DONE)  # it may have ended in this moment
        fields = {
            "state": Download.State.CANCELLED,
            "tries": row.tries_wanted,
            "fetched": 0,
            "speed": 0,
            "reason": None,
        }
        if await sync_to_async(rows.update)(**fields, changed_at=timezone.now()):
            await asyncio.to_thread(staging.remove, row.pk)

    async def _clean_up(self) -> None:
        if time.monotonic() - self._cleaned < CLEAN_UP:
            return
        self._cleaned = time.monotonic()
        kept = Download.objects.exclude(state__in=[Download.State.DONE, Download.State.CANCELLED])
        known = await sync_to_async(lambda: list(kept.values_list("pk", flat=True)))()
        await asyncio.to_thread(staging.clean_up, [*known, *self._tasks])

    async def _close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        if self._client is not None:
            await self._client.aclose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None
