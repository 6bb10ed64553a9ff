"""``startmodels [NAME…]``: become the supervisor, or ask the running one to start models and wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib import audit, parent_watch
from llmplatform.lib.early_messages import terminal_language
from llmplatform.lib.errors import ApiError
from models_app import config_sync, services, supervisor_lock, waiting
from models_app.states import State
from models_app.supervisor import Supervisor

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = gettext_lazy(  # type: ignore[assignment]
        "Start models: all active ones, or those named. The first such command stays and supervises them."
    )
    # The supervisor serves no pages; checks of those would load what it does not need.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME")
        parser.add_argument("--timeout", type=float, default=600, help=_("seconds to wait for models (default 600)"))

    def handle(self, *args: Any, **options: Any) -> None:
        lock = supervisor_lock.acquire()
        with translation.override(terminal_language()):
            self._take_up(options["names"])
            if lock is None and not self._wait(options["names"] or waiting.active_names(), options["timeout"]):
                sys.exit(1)
        if lock is not None:
            audit.run_as_service("supervisor")
            asyncio.run(supervise())

    def _take_up(self, names: list[str]) -> None:
        try:
            self._sync()
            self._activate(names)
        except ApiError as error:
            raise CommandError(error.message) from error

    def _sync(self) -> None:
        problems = config_sync.sync_config_file().problems
        if os.environ.get(parent_watch.VARIABLE):  # serve has shown them
            return
        for line, reason in problems:
            self.stderr.write(_("model_config.json, line %(line)d: %(reason)s") % {"line": line, "reason": reason})

    def _activate(self, names: list[str]) -> None:
        for name in names:
            services.set_active(name, True)

    def _wait(self, names: list[str], seconds: float) -> bool:
        good = True
        for outcome in waiting.wait_for(names, waiting.STARTED, seconds):
            self.stdout.write(outcome.line)
            good = good and outcome.state is State.READY
        return good


async def supervise() -> None:
    """Until a signal comes or the parent is gone."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def ask_to_stop(*_args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    parent_watch.watch(ask_to_stop)
    logger.info("supervisor started")
    await Supervisor().run(stop)
    logger.info("supervisor stopped")
