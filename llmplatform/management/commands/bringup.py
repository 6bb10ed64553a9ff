"""Started by ``manage.py serve``; see llmplatform.service.bringup."""

from __future__ import annotations

import sys
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib.early_messages import terminal_language
from llmplatform.service import bringup


class Command(BaseCommand):
    help = gettext_lazy("Used by serve: prepare the folder, then wait until the service is up.")  # type: ignore[assignment]
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        with translation.override(terminal_language()):
            try:
                password = bringup.prepare()
            except bringup.WrongSettings as error:
                raise CommandError(str(error)) from error
            except ValidationError as error:
                raise CommandError("ADMIN_USERNAME: " + " ".join(error.messages)) from error
            except DatabaseError as error:
                raise CommandError(
                    _("The database cannot be used (%(error)s): check DATABASE_URL.") % {"error": error}
                ) from error
            except OSError as error:
                raise CommandError(_("The start failed: %(error)s") % {"error": error}) from error
            if sys.stdin.readline():  # end of file: serve has gone
                bringup.announce(password)
