"""One tuning from its beginning to its end, in this process: measure what the search asks for, within the time there is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import psutil
from asgiref.sync import sync_to_async
from django.conf import settings

from models_app import machine, model_files, services, topology
from models_app.command_line import Wanted
from models_app.launchers.local import LocalLauncher
from models_app.models import ModelConfig, TuningRun
from models_app.preparation import NotStartable, find_file
from models_app.tuning import candidates, runs
from models_app.tuning.candidates import Circumstances, Setting
from models_app.tuning.search import Figure, NothingToMeasure, Outcome, Problem, Row, Searcher
from models_app.tuning.trial import Load, TrialFailed, Trials, processor_in_use

RUN_SECONDS = 6.0  # one measurement should last about so long: shorter ones are repeated within it
MOST_REQUESTS = 8  # of each client in one measurement
FEWEST_TOKENS = 16  # of an answer, on slow machines
MARGIN = 1.15  # the next run may take that much longer than the longest so far
Told = Callable[[float, list[Row]], None]


class StopWanted(Exception):
    pass


class Tuning:
    """``told``: how far it is (0 to 1) and the rows so far, after each measurement."""

    def __init__(self, run: TuningRun, told: Told = lambda _share, _rows: None) -> None:
        self.run, self.told = run, told
        self.launcher = LocalLauncher()
        self.trials = Trials(self.launcher, runs.mark(run.pk), log_path(run.model_name))
        self.load = Load(clients=1 if run.aim == candidates.LATENCY else run.clients)
        self.begun = time.monotonic()
        self.longest = self.busy = 0.0

    async def carry_out(self) -> None:
        """Writes everything into the row; never raises for what can go wrong with a model."""
        model = await ModelConfig.objects.filter(name=self.run.model_name).afirst()
        if model is None:
            await _end(self.run, TuningRun.Stage.FAILED, reason={"code": "tuning_model_gone", "params": {}})
            return
        wanted = Wanted(**{field.name: getattr(model, field.name) for field in fields(Wanted)})
        current = runs.setting_of(model)
        facts = {"machine": machine_facts(), "engine": self.launcher.version[:300], "before": asdict(current)}
        if not await sync_to_async(runs.begin)(self.run, file_identity=file_identity(wanted), **facts):
            await sync_to_async(runs.end_unbegun)(self.run)
            return
        try:
            outcome = await self._search(wanted, current)
        except (StopWanted, asyncio.CancelledError):
            await _end(self.run, TuningRun.Stage.STOPPED, reason=runs.STOPPED)
        except NothingToMeasure as error:
            await _end(self.run, TuningRun.Stage.FAILED, reason=error.reason)
        else:
            await self._finish(outcome)

    async def _search(self, wanted: Wanted, current: Setting) -> Outcome:
        cores, logical = topology.physical_cores(), machine.logical_cores()
        around = Circumstances(self.run.aim, self.load.clients, cores, logical)
        searcher = Searcher(self.run.aim, self.load.clients, self.enough_time)
        start = candidates.defaults(self.run.aim, current)
        known = [replace(current, replicas=1) if self.run.aim == candidates.LATENCY else current]
        search = searcher.run(start, known, candidates.axes(around))
        setting = next(search)
        while True:
            figure = await self._measure(setting, wanted)
            try:
                setting = search.send(figure)
            except StopIteration as stop:
                result: Outcome = stop.value
                return result
            share = (time.monotonic() - self.begun) / self.run.seconds
            self.told(share, searcher.rows)
            if not await sync_to_async(runs.note)(self.run, share, searcher.rows, self.busy):
                raise StopWanted

    async def _measure(self, setting: Setting, wanted: Wanted) -> Figure | Problem:
        first = not self.longest
        begin = time.monotonic()
        self.busy = max(self.busy, await processor_in_use())
        try:
            measured = await self.trials.measure(setting.applied_to(wanted), setting.replicas, self.load)
        except TrialFailed as error:
            self.longest = max(self.longest, time.monotonic() - begin)
            return error.reason
        if first and (load := load_for(self.load, measured.seconds, self.run.seconds)) != self.load:
            self.load, begin = load, time.monotonic()
            measured = await self.trials.measure(setting.applied_to(wanted), setting.replicas, self.load)
        self.longest = max(self.longest, time.monotonic() - begin)
        return Figure(measured.tokens_per_second, measured.slowest, measured.memory)

    def enough_time(self, more: int) -> bool:
        spent = time.monotonic() - self.begun
        return spent + more * self.longest * MARGIN <= self.run.seconds

    async def _finish(self, outcome: Outcome) -> None:
        chosen = {name: asdict(outcome.chosen.setting)[name] for name in candidates.fields_of(self.run.aim)}
        rows = [runs.row_dict(row) for row in outcome.rows]
        if self.run.apply:
            await sync_to_async(services.update_model)(self.run.model_name, chosen)
        found: dict[str, Any] = {"chosen": chosen, "rows": rows, "gain": round(outcome.gain, 4), "busy": self.busy}
        await _end(self.run, TuningRun.Stage.DONE, progress=1.0, applied=self.run.apply, **found)


def load_for(load: Load, seconds: float, budget: float) -> Load:
    """For runs that last long enough to mean something, and short enough that several fit into ``budget``. ``seconds`` is what
    one run with ``load`` took."""
    wanted = min(RUN_SECONDS, budget / 12)
    if seconds > 1.5 * wanted:
        return replace(load, answer_tokens=max(FEWEST_TOKENS, round(load.answer_tokens * wanted / seconds)))
    return replace(load, requests=max(1, min(MOST_REQUESTS, round(wanted / seconds))))


async def _end(run: TuningRun, stage: str, **values: Any) -> None:
    await sync_to_async(runs.end)(run, stage, **values)


def log_path(name: str) -> Path:
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return Path(settings.LOG_DIR) / "engines" / f"tuning-{digest}.log"


def file_identity(wanted: Wanted) -> str:
    try:
        path = find_file(wanted)
    except NotStartable:
        return ""
    return json.dumps([wanted.file, model_files.identity(path)], ensure_ascii=False)[:300]


def machine_facts() -> dict[str, Any]:
    """What a result holds for: another processor, or fewer cores, and it means nothing."""
    facts: dict[str, Any] = {
        "processor": machine.processor_name(),
        "cores": topology.physical_cores(),
        "memory": psutil.virtual_memory().total,
    }
    facts["mark"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return facts
