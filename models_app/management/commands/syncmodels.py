"""``syncmodels``: take over what changed in model_config.json, without a restart."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib.early_messages import terminal_language
from models_app import config_sync


class Command(BaseCommand):
    help = gettext_lazy(  # type: ignore[assignment]
        "Read model_config.json again. A running supervisor starts, changes and stops models accordingly."
    )
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        with translation.override(terminal_language()):
            self._sync()

    def _sync(self) -> None:
        report = config_sync.sync_config_file()
        for text, names in (
            (_("added: %(names)s"), report.added),
            (_("changed: %(names)s"), report.changed),
            (_("no longer in the file, so stopped: %(names)s"), report.removed),
            (_("written into the file: %(names)s"), report.written_back),
            (
                _("changed in the file and here, so left as they are until you decide in the console: %(names)s"),
                report.conflicts,
            ),
        ):
            if names:
                self.stdout.write(text % {"names": ", ".join(names)})
        for line, reason in report.problems:
            self.stderr.write(_("model_config.json, line %(line)d: %(reason)s") % {"line": line, "reason": reason})
        if report.problems:
            sys.exit(1)
        if not any((report.added, report.changed, report.removed, report.written_back, report.conflicts)):
            self.stdout.write(_("Nothing has changed."))
