"""What wallets have spent so far, from their settlements."""

from __future__ import annotations

from typing import Any

from django.db import migrations


def fill(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(
        "UPDATE accounts_wallet SET spent = COALESCE((SELECT -SUM(e.available_change + e.held_change)"
        " FROM accounts_ledgerentry e WHERE e.wallet_id = accounts_wallet.id AND e.kind = 'settle'), 0)"
    )
    schema_editor.execute("UPDATE accounts_wallet SET spent_at_lots = spent")


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_keys_groups_lots_usage_and_audit")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
