"""A short answer from a running service, and how fast it came."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import User
from accounts.services import console_token
from llmplatform.lib.early_messages import terminal_language
from llmplatform.service import run_folder, try_model
from llmplatform.service.terminal import say

MAX_TOKENS = 64


class Command(BaseCommand):
    help = gettext_lazy("Ask the running service for a short answer and say how fast it came.")  # type: ignore[assignment]
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("model", nargs="?", help=_("model name; without it, the first one that is ready"))
        parser.add_argument("--question", default="", help=_("what to ask"))

    def handle(self, *args: Any, **options: Any) -> None:
        with translation.override(terminal_language()):
            try:
                self._ask(options["model"], options["question"] or _("Hello! Who are you?"))
            except try_model.NoAnswer as error:
                raise CommandError(str(error)) from error

    def _ask(self, model: str | None, question: str) -> None:
        token = self._token()
        name = model or next(iter(try_model.models(token)), None)
        if name is None:
            raise CommandError(_("No model is ready; manage.py status shows what they do."))
        measured = try_model.ask(name, question, token, MAX_TOKENS)
        say(f"{name}: {question}")
        say(measured.text.strip())
        say()
        say(
            _("%(tokens)d tokens, first after %(first).2f s, then %(speed).1f tokens/s")
            % {"tokens": measured.tokens, "first": measured.first_token, "speed": measured.tokens_per_second}
        )

    def _token(self) -> str:
        if run_folder.read(settings.HOME_DIR) is None:
            raise CommandError(_("The service does not run in this folder: start it with ./start-llm-service.sh"))
        administrator = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if administrator is None:
            raise CommandError(_("There is no administrator: make one with manage.py createadmin"))
        return console_token(administrator)
