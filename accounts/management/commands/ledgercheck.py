"""``manage.py ledgercheck``: prove that the ledger is right."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.ledger_checks import ledger_problems
from accounts.models import LedgerEntry, Wallet


class Command(BaseCommand):
    help = gettext_lazy("Checks every invariant of the ledger and names each break; ends with 1 when there is one.")  # type: ignore[assignment]

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help=_("the result for a program"))

    def handle(self, *args: Any, **options: Any) -> None:
        problems = ledger_problems()
        entries, wallets = LedgerEntry.objects.count(), Wallet.objects.count()
        if options["json"]:
            self.stdout.write(json.dumps({"wallets": wallets, "entries": entries, "problems": problems}))
        elif problems:
            self.stdout.write("\n".join(problems))
        else:
            text = _("The ledger is right: %(wallets)d balances, %(entries)d entries.")
            self.stdout.write(text % {"wallets": wallets, "entries": entries})
        if problems:
            raise SystemExit(1)
