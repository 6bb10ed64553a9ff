"""``manage.py buildllama`` is handled before Django starts, see manage.py; this makes it known to ``manage.py help``."""

from __future__ import annotations

import sys

from django.core.management.base import BaseCommand
from django.utils.translation import gettext_lazy

from llmplatform.service import cli


class Command(BaseCommand):
    help = gettext_lazy("Build llama.cpp for this processor, measure it, and use it when it is faster.")  # type: ignore[assignment]

    def run_from_argv(self, argv: list[str]) -> None:
        sys.exit(cli.main(argv[1:]))
