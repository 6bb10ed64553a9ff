"""``manage.py resetpassword USER``: for somebody who forgot their password, where no mail is sent."""

from __future__ import annotations

import secrets
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts import password_reset, people, selectors, services
from accounts.models import User


class Command(BaseCommand):
    help = gettext_lazy(  # type: ignore[assignment]
        "Gives a person a random password that must be changed at the first login, or with --link a link to choose one."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help=_("user name or email address"))
        parser.add_argument("--link", action="store_true", help=_("print a link that works once instead"))

    def handle(self, *args: Any, **options: Any) -> None:
        user = self._person(options["user"])
        if options["link"]:
            origin = settings.PUBLIC_URL or f"http://localhost:{settings.SERVER_PORT}"
            self.stdout.write(password_reset.link_for(user, origin))
            return
        password = secrets.token_urlsafe(12)
        services.set_password(user, password, must_change=True)
        text = _("%(name)s: password %(password)s (to be changed at the first login)")
        self.stdout.write(text % {"name": user.username, "password": password})

    def _person(self, name: str) -> User:
        found = [user for user in selectors.users_named(name) if user in people.persons()]
        if not found:
            raise CommandError(_("There is no user “%(name)s”.") % {"name": name})
        return found[0]
