"""Which models and replicas there are and what they cost, in memory, read from the database twice a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from django.conf import settings
from django.db import DatabaseError, connection

from accounts import prices
from accounts.callers import Caller
from accounts.prices import default_policy
from cluster.balancer import Policy
from gateway import errors, naming
from gateway.demand import DemandReports
from gateway.slot_sharing import SlotSharing
from gateway.slots import ModelPool
from llmplatform.lib import knock
from models_app.selectors import ModelView, serving_snapshot

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
LEAST_PAUSE = 0.02  # however many knock
LONGEST_PAUSE = 8.0  # while the database cannot be read
FIRST_READ_SECONDS = 10.0


def _read() -> tuple[dict[str, ModelView], dict[str, prices.Policy]]:
    """In the directory's own thread, on its own connection."""
    try:
        return serving_snapshot(), prices.policies()
    except DatabaseError:
        connection.close()  # a broken connection is opened anew next time
        raise


class ModelsDirectory:
    """Belongs to one event loop. ``start`` is called by whoever needs it first: some servers have no lifespan events."""

    def __init__(self) -> None:
        self.pools: dict[str, ModelPool] = {}
        self._names: dict[str, str] = {}  # of models, by what else stands for them
        self.policies: dict[str, prices.Policy] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models-directory")
        self._first_read = asyncio.Event()
        self._news = asyncio.Event()
        self._demand = DemandReports()
        self._refreshing: asyncio.Task[None] | None = None
        self._sharing: asyncio.Task[None] | None = None  # of slots, with other web processes

    async def pool(self, name: str) -> ModelPool | None:
        """The pool of the model that ``name`` stands for (``naming.names_of``), or None when there is no such model."""
        if self._refreshing is None:
            self.start()
        if not self._first_read.is_set():
            try:
                async with asyncio.timeout(FIRST_READ_SECONDS):
                    await self._first_read.wait()
            except TimeoutError:
                raise errors.unavailable() from None
        return self.pools.get(self._names.get(name, name))

    def serves(self, name: str) -> bool:
        """Whether the model answers requests right now."""
        return (pool := self.pools.get(name)) is not None and pool.slots > 0

    def policy(self, name: str) -> prices.Policy:
        """What the model costs and how much of it may be asked for."""
        return self.policies.get(name) or default_policy()

    async def models_for(self, caller: Caller) -> list[ModelView]:
        """What ``caller`` may use, the default model first."""
        await self.pool("")
        views = (pool.view for pool in self.pools.values())
        may = (view for view in views if caller.sees(*view.names) and caller.may_use(*view.names))
        return sorted(may, key=lambda view: (not view.is_default, view.name))

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._refreshing = loop.create_task(self._refresh_forever())
        if settings.REDIS_URL:
            self._sharing = loop.create_task(SlotSharing(settings.REDIS_URL, self.pools.values).run())

    async def refresh(self) -> None:
        """One reading. Callable on its own in tests."""
        loop = asyncio.get_running_loop()
        await self._demand.tell(self.pools.values(), self._thread)
        began = monotonic()
        snapshot, self.policies = await loop.run_in_executor(self._thread, _read)
        self._take_over(snapshot, began)

    def _take_over(self, snapshot: dict[str, ModelView], seen_at: float) -> None:
        for name, view in snapshot.items():
            if (pool := self.pools.get(name)) is not None:
                pool.update(view, seen_at)
            else:
                self.pools[name] = ModelPool(
                    view,
                    settings.QUEUE_LENGTH,
                    settings.QUEUE_BYTES,
                    settings.MODEL_WAIT_SECONDS,
                    settings.QUEUE_WAIT_SECONDS,
                    wanted=self._news.set,
                    policy=Policy(settings.ROUTING),
                )
        for name in self.pools.keys() - snapshot.keys():
            self.pools.pop(name).update(None, seen_at)
        self._names = naming.names_of(snapshot.values())
        self._first_read.set()

    async def _refresh_forever(self) -> None:
        """By the clock, when the supervisor knocks, and when somebody asks for a model that has to be loaded."""
        pause = REFRESH_SECONDS
        await knock.Door.open(knock.WEB, self._news.set)  # as long as this process
        while True:
            self._news.clear()
            try:
                await self.refresh()
                pause = REFRESH_SECONDS
            except Exception:  # a loop's edge: what was read last stays in force until the database comes back
                logger.exception("the models could not be read")
                pause = min(2 * pause, LONGEST_PAUSE)
            await asyncio.sleep(LEAST_PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()


_directories: dict[asyncio.AbstractEventLoop, ModelsDirectory] = {}


def directory() -> ModelsDirectory:
    """The running loop's directory."""
    loop = asyncio.get_running_loop()
    found = _directories.get(loop)
    if found is None:
        for closed in [other for other in _directories if other.is_closed()]:
            del _directories[closed]
        found = _directories[loop] = ModelsDirectory()
    return found


def all_pools() -> list[ModelPool]:
    """Of every loop in this process; for showing, from any thread."""
    return [pool for found in list(_directories.values()) for pool in list(found.pools.values())]
