"""``pullmodel``: fetch a model file, and follow how it goes. The supervisor does the work; where none runs, this command does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from argparse import ArgumentParser
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.template.defaultfilters import filesizeformat
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib.early_messages import terminal_language
from llmplatform.lib.errors import ApiError
from models_app.downloads import problems, selectors, services
from models_app.downloads.hubs import HUBS
from models_app.downloads.models import Download
from models_app.downloads.services import Wish
from models_app.downloads.worker import Worker

LOOK = 0.3
INTERRUPTED = 130


class Command(BaseCommand):
    help = gettext_lazy(  # type: ignore[assignment]
        "Fetch a model: OWNER/REPOSITORY, OWNER/REPOSITORY:FILE, OWNER/REPOSITORY:Q4_K_M, or an address."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", nargs="?", default="", metavar="SOURCE")
        parser.add_argument("--hub", choices=("auto", *HUBS), default="auto", help=_("where to look for it"))
        parser.add_argument("--name", default="", help=_("make a model of this name of it"))
        parser.add_argument("--list", action="store_true", help=_("show the downloads"))
        parser.add_argument("--cancel", type=int, metavar="ID", help=_("cancel a download and delete what came of it"))
        parser.add_argument("--retry", type=int, metavar="ID", help=_("go on with a download that failed"))
        parser.add_argument("--json", action="store_true", help=_("answer with JSON"))

    def handle(self, *args: Any, **options: Any) -> None:
        self.json = bool(options["json"])
        with translation.override(terminal_language()):
            try:
                self._act(options)
            except ApiError as error:
                raise CommandError(error.message) from error
            except ValidationError as error:
                raise CommandError(" ".join(error.messages)) from error

    def _act(self, options: dict[str, Any]) -> None:
        if options["list"]:
            self._list()
        elif options["cancel"]:
            self._follow(services.cancel(options["cancel"]))
        elif options["retry"]:
            self._follow(services.retry(options["retry"]))
        elif options["source"]:
            download, new = services.pull(Wish(options["source"], options["hub"], options["name"]))
            if not new:
                self._say(_("This is being downloaded already (%(id)d).") % {"id": download.pk})
            self._follow(download)
        else:
            raise CommandError(_("Say what to fetch, for example Qwen/Qwen2.5-0.5B-Instruct-GGUF:q4_k_m"))

    # -- showing -----------------------------------------------------------------------------------------------------
    def _list(self) -> None:
        downloads = selectors.recent()
        if self.json:
            self.stdout.write(json.dumps([selectors.shown(one) for one in downloads], ensure_ascii=False, indent=2))
            return
        for one in downloads:
            self.stdout.write(f"{one.pk:>5}  {line(one)}")
        if not downloads:
            self.stdout.write(_("No downloads."))

    def _say(self, text: str) -> None:
        if not self.json:
            self.stdout.write(text)

    # -- following ---------------------------------------------------------------------------------------------------
    def _follow(self, download: Download) -> None:
        """Until it has ended. Exit code 1 when it failed, 130 after Ctrl-C."""
        try:
            end = asyncio.run(self._until_ended(download.pk))
        except KeyboardInterrupt:
            self.stderr.write("")
            self.stderr.write(
                _("It goes on while the service runs. To cancel it: manage.py pullmodel --cancel %(id)d")
                % {"id": download.pk}
            )
            sys.exit(INTERRUPTED)
        if self.json:
            self.stdout.write(json.dumps(selectors.shown(end), ensure_ascii=False, indent=2))
        else:
            self.stdout.write(line(end))
        if end.state == Download.State.FAILED:
            sys.exit(1)

    async def _until_ended(self, pk: int) -> Download:
        stop, working = asyncio.Event(), None
        worker = Worker(only=pk)
        bar = Bar(self.stdout._out if not self.json else None)
        try:
            while True:
                if working is None and worker.acquire():
                    working = asyncio.create_task(worker.run(stop))
                download = await sync_to_async(Download.objects.get)(pk=pk)
                if not download.is_open and not (download.cancelled and download.state == Download.State.FAILED):
                    return download
                bar.show(download)
                await asyncio.sleep(LOOK)
        finally:
            bar.clear()
            stop.set()
            if working is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await working


def line(download: Download) -> str:
    """One download in one line."""
    parts = [download.what, str(download.get_state_display())]
    if download.state == Download.State.FETCHING:
        parts.append(amount(download))
    if download.state == Download.State.DONE and download.size:
        parts.append(filesizeformat(download.size))
    if reason := problems.text(download.reason):
        parts.append(reason)
    return "  ".join(parts)


def amount(download: Download) -> str:
    there = filesizeformat(download.fetched)
    if not download.size:
        return there
    percent = min(100, 100 * download.fetched // download.size)
    return _("%(percent)d %% of %(size)s") % {"percent": percent, "size": filesizeformat(download.size)}


class Bar:
    """One line that changes, on a terminal; elsewhere a line when the state changes."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.moves = stream is not None and stream.isatty()
        self._last = ""

    def show(self, download: Download) -> None:
        if self.stream is None:
            return
        text = self._text(download)
        if self.moves:
            self.stream.write(f"\r\x1b[K{text[:100]}")
            self.stream.flush()
        elif str(download.state) != self._last:
            self._last = str(download.state)
            print(text, file=self.stream, flush=True)

    def _text(self, download: Download) -> str:
        text = str(download.get_state_display())
        if reason := problems.text(download.reason):
            return f"{text}: {reason}"
        if download.state != Download.State.FETCHING:
            return text
        text = f"{text} {amount(download)}"
        if not download.speed:
            return text
        text += f", {filesizeformat(download.speed)}/s"
        if download.size:
            left = (download.size - download.fetched) // download.speed
            text += f", {time.strftime('%H:%M:%S', time.gmtime(max(0, left)))}"
        return text

    def clear(self) -> None:
        if self.moves:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
