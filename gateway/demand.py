"""What this process tells the supervisor of models that are loaded when asked for."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Iterable
from concurrent.futures import Executor
from time import monotonic

from django.db import DatabaseError, connection

from gateway.slots import ModelPool
from llmplatform.lib import knock
from models_app import demand
from models_app.demand import Report

logger = logging.getLogger(__name__)
REPORT_EVERY = 2.0  # seconds, of what is the same as before, but in use


class DemandReports:
    """Which reports are due: what has changed, and what would lapse."""

    def __init__(self) -> None:
        self._process = f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._told: dict[int, tuple[Report, float]] = {}

    async def tell(self, pools: Iterable[ModelPool], thread: Executor) -> None:
        """What is due, by ``thread`` and its connection. What could not be written is due again at the next call."""
        now = monotonic()
        found = {
            pool.view.id: report for pool in pools if pool.view.on_demand and (report := pool.demand()) is not None
        }
        due = {model: report for model, report in found.items() if self._is_due(model, report, now)}
        if not due:
            return
        written: bool = await asyncio.get_running_loop().run_in_executor(thread, _write, self._process, due)
        if written:
            self._told |= {model: (report, now) for model, report in due.items()}

    def _is_due(self, model: int, report: Report, now: float) -> bool:
        if model not in self._told:
            return True
        before, at = self._told[model]
        if (report.waiting > 0, report.under_way > 0) != (before.waiting > 0, before.under_way > 0):
            return True
        return report.used < now - at and now - at >= REPORT_EVERY


def _write(process: str, reports: dict[int, Report]) -> bool:
    try:
        demand.report(process, reports)
    except DatabaseError as error:
        logger.warning("what models are asked for could not be told: %s", error)
        connection.close()  # a broken connection is opened anew next time
        return False
    knock.knock(knock.SUPERVISOR)
    return True
