"""Carries out what ``models_app.on_demand`` decides: the supervisor's knowledge of loads and uses, turned into standings."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from asgiref.sync import sync_to_async

from models_app import demand, machine, memory, records
from models_app.command_line import Wanted
from models_app.demand import Asked
from models_app.lives import Shared
from models_app.on_demand import STAY_LEAST, Decision, Phase, Standing, decide, stay
from models_app.preparation import NotStartable, plan_of
from models_app.replica_runner import ReplicaRunner
from models_app.selectors import WantedModel
from models_app.states import State

logger = logging.getLogger(__name__)
FORGET_EVERY = 3600.0


@dataclass
class _Seen:
    """Of one model; times are of the monotonic clock."""

    phase: Phase = Phase.AWAY
    since: float = float("-inf")
    load_seconds: float | None = None


class OnDemandLoads:
    """``step`` before each reconciliation; what it returns is what should run."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}
        self._told: dict[int, list[str] | None] = {}
        self._lacking_since: dict[int, float] = {}
        self._forgot = time.monotonic()

    async def step(
        self, models: Sequence[WantedModel], runners: Mapping[int, Sequence[ReplicaRunner]], shared: Shared
    ) -> list[WantedModel]:
        """``models`` with 0 replicas for those that are not to be loaded now. ``runners``: by model. Raises what the database
        raises."""
        ours = [model for model in models if model.on_demand is not None]
        for gone in self._seen.keys() - {model.id for model in ours}:
            del self._seen[gone]
            self._told.pop(gone, None)
        if not ours:
            return list(models)
        asked = await sync_to_async(demand.asked)()
        await self._forget_old()
        for model in ours:
            await self._look(model.id, _phase(runners.get(model.id, ())), time.monotonic())
        lacking = await asyncio.to_thread(self._lacking, models, runners)
        waits = bool(lacking) or any(self._waits(model.id, asked) for model in ours)
        # Sizes matter only when somebody wants room; finding them out is a look at the disk.
        sizes = await asyncio.to_thread(_sizes, ours, shared.learned) if waits else {}
        free = await asyncio.to_thread(_free, shared, runners) if waits else 0
        standings = [self._standing(model, asked, sizes) for model in ours] + lacking
        decision = decide((_above(one, free) for one in standings), free)
        await self._tell(ours, decision)
        for model in ours:
            self._log(model, decision, next(one for one in standings if one.id == model.id))
        return [model if model.on_demand is None or model.id in decision.loaded else replace(model, replicas=0)
                for model in models]  # fmt: skip

    async def _forget_old(self) -> None:
        if time.monotonic() - self._forgot >= FORGET_EVERY:
            self._forgot = time.monotonic()
            await sync_to_async(demand.forget_old)()

    # -- what is seen --------------------------------------------------------------------------------------------------
    def _waits(self, model_id: int, asked: Mapping[int, Asked]) -> bool:
        away = self._seen[model_id].phase in (Phase.AWAY, Phase.LEAVING)
        return away and asked.get(model_id, Asked()).waiting is not None

    def _standing(self, model: WantedModel, asked: Mapping[int, Asked], sizes: Mapping[int, int]) -> Standing:
        rules, wish, seen = model.on_demand, asked.get(model.id, Asked()), self._seen[model.id]
        assert rules is not None  # noqa: S101 - only those are looked at
        return Standing(
            id=model.id,
            phase=seen.phase,
            size=sizes.get(model.id, 0),
            since=time.monotonic() - seen.since,
            idle=wish.idle,
            waiting=wish.waiting,
            busy=wish.busy,
            ttl=rules.ttl,
            stay=STAY_LEAST if seen.load_seconds is None else stay(seen.load_seconds),
            pinned=rules.pinned,
            group=rules.group,
        )

    async def _look(self, model_id: int, phase: Phase, now: float) -> None:
        seen = self._seen.get(model_id)
        if seen is None:
            # What an earlier supervisor has loaded counts as loaded just now, and what is away as away for ever.
            seen = self._seen[model_id] = _Seen(phase, float("-inf") if phase is Phase.AWAY else now)
        if phase is not seen.phase:
            if phase is Phase.READY and seen.phase is Phase.COMING:
                seen.load_seconds = now - seen.since
                await records.note_loading(model_id, seconds=seen.load_seconds)
            if not (seen.phase is Phase.LEAVING and phase is Phase.AWAY):  # it has not served since it began to leave
                seen.since = now
            seen.phase = phase

    def _lacking(self, models: Iterable[WantedModel], runners: Mapping[int, Sequence[ReplicaRunner]]) -> list[Standing]:
        """Models that should always run and lack nothing but memory: those on demand make room for them. Their ids are negative,
        their sizes what is lacking."""
        lacks = {model.id: max((runner.lacks for runner in runners.get(model.id, ())), default=0)
                 for model in models if model.on_demand is None and model.replicas}  # fmt: skip
        lacks = {model: size for model, size in lacks.items() if size > 0}
        # What ends gives its own memory back; what it has mapped counted as free before. Where that is not enough, nobody goes.
        may_go = [runner for model in models if model.on_demand is not None and not model.on_demand.pinned
                  for runner in runners.get(model.id, ())] if lacks else []  # fmt: skip
        room = sum(runner.own_memory() for runner in may_go)
        now = time.monotonic()
        self._lacking_since = {
            model: self._lacking_since.get(model, now) for model, size in lacks.items() if size <= room
        }
        return [Standing(-model, Phase.AWAY, lacks[model], waiting=now - since)
                for model, since in self._lacking_since.items()]  # fmt: skip

    # -- what is told --------------------------------------------------------------------------------------------------
    async def _tell(self, ours: Iterable[WantedModel], decision: Decision) -> None:
        names = {model.id: model.name for model in ours}
        for model in names:
            others = decision.held_up.get(model)
            told = None if others is None else sorted(names[other] for other in others if other in names)
            if told != self._told.get(model):
                await records.note_loading(model, held_up_by=told)
                self._told[model] = told

    def _log(self, model: WantedModel, decision: Decision, standing: Standing) -> None:
        if model.id in decision.loaded and standing.phase is Phase.AWAY:
            logger.info("%s: loaded, for somebody asks for it", model.name)
        elif model.id not in decision.loaded and standing.phase is Phase.READY:
            why = "makes room for others" if decision.held_up else f"nobody has asked for it for {standing.idle:.0f} s"
            logger.info("%s: unloaded, it %s", model.name, why)


def _above(one: Standing, free: int) -> Standing:
    """What a model lacks, it lacks beyond what is free."""
    return one if one.id > 0 else replace(one, size=one.size + max(0, free))


def _phase(runners: Sequence[ReplicaRunner]) -> Phase:
    if not runners:
        return Phase.AWAY
    staying = [runner for runner in runners if not runner.stopping]
    if not staying:
        return Phase.LEAVING
    if any(runner.is_ready for runner in staying):
        return Phase.READY
    return Phase.FAILED if all(runner.row.state is State.FAILED for runner in staying) else Phase.COMING


def _sizes(models: Iterable[WantedModel], learned: Mapping[str, int]) -> dict[int, int]:
    """Predicted bytes of all replicas, by model; 0 when that cannot be told, and the start will say why."""
    return {model.id: model.replicas * _size_of_one(model.wanted, learned) for model in models}


def _size_of_one(wanted: Wanted, learned: Mapping[str, int]) -> int:
    try:
        return plan_of(wanted, learned, memory.usable(machine.total_memory())).need.at_start
    except (NotStartable, OSError):
        return 0


def _free(shared: Shared, runners: Mapping[int, Sequence[ReplicaRunner]]) -> int:
    """Bytes for another model. The system counts mapped files as free, and those of running models are in use."""
    available = machine.available_memory() - shared.promised()
    return memory.usable(max(0, available)) - sum(
        max(0, runner.engine.process.mapped() - runner.engine.superfluous)
        for of_model in runners.values()
        for runner in of_model
        if runner.engine is not None and runner.id not in shared.memory_promised
    )
