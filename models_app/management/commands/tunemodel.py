"""``tunemodel NAME``: measure which settings are best for a model on this machine. The supervisor calls it with ``--run``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from argparse import ArgumentParser
from typing import Any

import filelock
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib import audit, parent_watch
from llmplatform.lib.early_messages import terminal_language
from llmplatform.lib.errors import ApiError
from models_app.models import TuningRun
from models_app.tuning import runs, words
from models_app.tuning.candidates import AIMS, THROUGHPUT
from models_app.tuning.measuring import Tuning
from models_app.tuning.search import Row

INTERRUPTED = 130


class Command(BaseCommand):
    help = gettext_lazy("Measure which settings are best for a model on this machine.")  # type: ignore[assignment]
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", metavar="NAME")
        parser.add_argument(
            "--aim", choices=AIMS, default=THROUGHPUT, help=_("what should be best (default throughput)")
        )
        parser.add_argument("--seconds", type=int, default=240, help=_("longest time (default 240)"))
        parser.add_argument("--clients", type=int, default=4, help=_("people at once (default 4)"))
        parser.add_argument("--apply", action="store_true", help=_("use the result"))
        parser.add_argument("--json", action="store_true", help=_("print the result as JSON"))
        parser.add_argument("--run", type=int, metavar="ID", help=_("carry out what was asked for in the console"))

    def handle(self, *args: Any, **options: Any) -> None:
        lock = filelock.FileLock(settings.RUN_DIR / "tuning.lock", timeout=0)
        settings.RUN_DIR.mkdir(parents=True, exist_ok=True)
        with translation.override(terminal_language()):
            try:
                with lock:
                    self._tune(options)
            except filelock.Timeout as error:
                raise CommandError(_("Another model is being tuned; two at once would disturb each other.")) from error

    def _tune(self, options: dict[str, Any]) -> None:
        runs.clean_up()
        run = self._find(options)
        quiet = options["json"] or options["run"] is not None
        if options["run"] is not None:
            audit.run_as_service("supervisor")
        asyncio.run(carry_out(Tuning(run, lambda share, rows: None if quiet else self._tell(share, rows))))
        run.refresh_from_db()
        if options["json"]:
            self.stdout.write(json.dumps(result(run), ensure_ascii=False))
        elif not quiet:
            self._show(run)
        if run.stage != TuningRun.Stage.DONE:
            sys.exit(INTERRUPTED if run.stage == TuningRun.Stage.STOPPED else 1)

    def _find(self, options: dict[str, Any]) -> TuningRun:
        if options["run"] is not None:
            run = TuningRun.objects.filter(pk=options["run"]).first()
            if run is None:
                raise CommandError(_("There is no such tuning."))
            return run
        if not options["name"]:
            raise CommandError(_("Name a model."))
        if not runs.SHORTEST <= options["seconds"] <= runs.LONGEST or not 1 <= options["clients"] <= runs.MOST_CLIENTS:
            text = _("--seconds takes %(shortest)d to %(longest)d, --clients 1 to %(most)d.")
            raise CommandError(text % {"shortest": runs.SHORTEST, "longest": runs.LONGEST, "most": runs.MOST_CLIENTS})
        try:
            return runs.want(
                options["name"],
                options["aim"],
                options["clients"],
                options["seconds"],
                options["apply"],
                pid=os.getpid(),
            )
        except ApiError as error:
            raise CommandError(error.message) from error

    def _tell(self, share: float, rows: list[Row]) -> None:
        row = rows[-1]
        text = words.setting_text(runs.row_dict(row)["settings"])
        figure = f"{row.speed:.1f} tokens/s" if row.figures else _("not possible")
        self.stdout.write(f"{min(share, 1):4.0%}  {text}: {figure}")

    def _show(self, run: TuningRun) -> None:
        if run.rows:
            self.stdout.write("")
            self.stdout.write(_("tokens/s | slowest | memory | settings"))
        for line in words.lines(run):
            mark = "→" if line.chosen else " "
            figures = f"{line.speed:>7} {line.slowest:>7} {line.memory:>9}"
            self.stdout.write(f"{mark} {figures}  {line.settings}" + (f": {line.problem}" if line.problem else ""))
        for sentence in words.sentences(run):
            self.stdout.write(sentence)


def result(run: TuningRun) -> dict[str, Any]:
    return runs.run_dict(run, words.sentences(run))


async def carry_out(tuning: Tuning) -> None:
    """Until it is done, a signal comes, or the parent is gone. Engines are ended in any case."""
    task, loop = asyncio.create_task(tuning.carry_out()), asyncio.get_running_loop()

    def ask_to_stop(*_args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(task.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_stop)
    parent_watch.watch(ask_to_stop)
    with contextlib.suppress(asyncio.CancelledError):
        await task
