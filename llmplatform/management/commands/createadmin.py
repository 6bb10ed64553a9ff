"""An administrator by hand, or a new password for one who lost it."""

from __future__ import annotations

import argparse
import secrets
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts import services
from accounts.models import User
from llmplatform.lib.early_messages import terminal_language
from llmplatform.service.terminal import say


class Command(BaseCommand):
    help = gettext_lazy("Make an administrator, or give one a new password.")  # type: ignore[assignment]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("username", nargs="?", default=settings.ADMIN_USERNAME, help=_("user name"))
        parser.add_argument(
            "--reset", action="store_true", help=_("the administrator exists and gets a new random password")
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with translation.override(terminal_language()):
            username: str = options["username"]
            password = self._reset(username) if options["reset"] else self._create(username)
            say(
                _("Administrator %(username)s, password %(password)s (to be changed at the first login)")
                % {"username": username, "password": password}
            )

    def _create(self, username: str) -> str:
        try:
            return services.create_administrator(username).password or ""
        except ValidationError as error:
            hint = _("Use --reset to give an administrator a new password.")
            raise CommandError(" ".join([*error.messages, hint])) from error

    def _reset(self, username: str) -> str:
        user = User.objects.filter(username__iexact=username, is_superuser=True).first()
        if user is None:
            raise CommandError(_("There is no administrator %(username)s.") % {"username": username})
        password = secrets.token_urlsafe(12)
        services.set_password(user, password, must_change=True)
        return password
