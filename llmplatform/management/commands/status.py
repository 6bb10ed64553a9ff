"""What runs here. Exit code 0: all well; 1: something is wrong; 3: not running."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib.early_messages import terminal_language
from llmplatform.service import run_folder, status
from llmplatform.service.terminal import padded, say

NOT_RUNNING = 3


class Command(BaseCommand):
    help = gettext_lazy("Show what runs in this folder. Exit code 0: all well, 1: something is wrong, 3: not running.")  # type: ignore[assignment]
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        with translation.override(terminal_language()):
            running = run_folder.read(settings.HOME_DIR)
            if running is None:
                say(_("The service does not run in this folder."))
                sys.exit(NOT_RUNNING)
            rows = status.rows(running)
            for row in rows:
                say(f"{'✓' if row.well else '✗'} {padded(row.name, 24)} {padded(row.state, 12)} {row.text}".rstrip())
            if not all(row.well for row in rows):
                sys.exit(1)
