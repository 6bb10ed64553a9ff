"""``stopmodels [NAME…]``: stop all models or those named, and wait until they have stopped."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib.early_messages import terminal_language
from llmplatform.lib.errors import ApiError
from models_app import leftovers, services, waiting
from models_app.states import State


class Command(BaseCommand):
    help = gettext_lazy("Stop models: all, or those named. They stay stopped until startmodels.")  # type: ignore[assignment]
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME")
        parser.add_argument("--timeout", type=float, default=60, help=_("seconds to wait (default 60)"))

    def handle(self, *args: Any, **options: Any) -> None:
        with translation.override(terminal_language()):
            self._stop(options)

    def _stop(self, options: dict[str, Any]) -> None:
        names = options["names"] or waiting.active_names()
        try:
            for name in names:
                services.set_active(name, False)
        except ApiError as error:
            raise CommandError(error.message) from error
        leftovers.end_left_engines(names)
        outcomes = list(waiting.wait_for(names, waiting.STOPPED, options["timeout"]))
        for outcome in outcomes:
            self.stdout.write(outcome.line)
        if any(outcome.state is not State.STOPPED for outcome in outcomes):
            sys.exit(1)
