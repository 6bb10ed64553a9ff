"""``manage.py resetsecondfactor USER``: for somebody who lost the phone and the recovery codes."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts import people, second_factor, selectors
from accounts.models import User


class Command(BaseCommand):
    help = gettext_lazy("Takes a person's second factor and recovery codes away; the password stays.")  # type: ignore[assignment]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help=_("user name or email address"))

    def handle(self, *args: Any, **options: Any) -> None:
        user = self._person(options["user"])
        removed, none = _("%(name)s: the second factor is removed"), _("%(name)s has no second factor")
        self.stdout.write((removed if second_factor.remove(user) else none) % {"name": user.username})

    def _person(self, name: str) -> User:
        found = [user for user in selectors.users_named(name) if user in people.persons()]
        if not found:
            raise CommandError(_("There is no user “%(name)s”.") % {"name": name})
        return found[0]
