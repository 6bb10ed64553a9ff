"""The web server alone; ``manage.py serve`` starts it, and somebody with a supervisor of their own may."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from llmplatform import routing  # noqa: F401 - loads the gateway and the chat, as above
from llmplatform.service import web


class Command(BaseCommand):
    help = _("Run the web server (Daphne) on SERVER_HOST and SERVER_PORT.")  # type: ignore[assignment]
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--wait", action="store_true", help=argparse.SUPPRESS)

    def handle(self, *args: Any, **options: Any) -> None:
        # Loaded before anything is served: the first request would wait for it.
        import_module(settings.ROOT_URLCONF)
        if options["wait"] and not _told_to_go_on():
            return
        where = web.endpoint(settings.SERVER_HOST, settings.SERVER_PORT, settings.TLS_CERT, settings.TLS_KEY)
        web.run(import_string(settings.ASGI_APPLICATION), where)


def _told_to_go_on() -> bool:
    """``serve`` starts us while it still prepares the database, and writes a line when that is done. False: it has ended."""
    return bool(os.read(0, 16))
