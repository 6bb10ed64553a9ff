"""Started by ``manage.py serve``; see llmplatform.service.bringup."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any, NoReturn

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand
from django.db import DatabaseError, connection
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib.early_messages import terminal_language
from llmplatform.service import bringup
from llmplatform.service.terminal import complain

logger = logging.getLogger(__name__)
DAMAGED = ("not a database", "malformed", "database corruption")  # as SQLite says it


def give_up(reason: str) -> NoReturn:
    """One line, without the class name that CommandError would put in front."""
    logger.error("%s", reason, extra={"console": False})
    complain(" ".join(reason.split()))
    sys.exit(1)


def database_problem(error: DatabaseError) -> str:
    """What is wrong with the database and what to do about it."""
    if connection.vendor == "sqlite":
        path = Path(connection.settings_dict["NAME"])
        if path.is_dir():
            return _("%(path)s is a folder: move it away, or name another file in DATABASE_URL.") % {"path": path}
        if any(sign in str(error) for sign in DAMAGED):
            return _(
                "%(path)s is damaged: put back a copy from your backups, or move it away to begin with an empty one."
            ) % {"path": path}
    return _("The database cannot be used (%(error)s): check DATABASE_URL.") % {"error": error}


class Command(BaseCommand):
    help = gettext_lazy("Used by serve: prepare the folder, then wait until the service is up.")  # type: ignore[assignment]
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        with translation.override(terminal_language()):
            try:
                password = bringup.prepare()
            except bringup.WrongSettings as error:
                give_up(str(error))
            except ValidationError as error:
                give_up("ADMIN_USERNAME: " + " ".join(error.messages))
            except DatabaseError as error:
                give_up(database_problem(error))
            except OSError as error:
                give_up(_("The start failed: %(error)s") % {"error": error})
            if sys.stdin.readline():  # end of file: serve has gone
                bringup.announce(password)
