"""The web server alone; ``manage.py serve`` starts it, and somebody with a supervisor of their own may."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from llmplatform.service import web


class Command(BaseCommand):
    help = _("Run the web server (Daphne) on SERVER_HOST and SERVER_PORT.")  # type: ignore[assignment]
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        where = web.endpoint(settings.SERVER_HOST, settings.SERVER_PORT, settings.TLS_CERT, settings.TLS_KEY)
        web.run(import_string(settings.ASGI_APPLICATION), where)
