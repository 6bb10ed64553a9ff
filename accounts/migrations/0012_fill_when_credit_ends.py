"""When the next lot ends, of wallets that have one."""

from __future__ import annotations

from typing import Any

from django.db import migrations


def fill(apps: Any, schema_editor: Any) -> None:
    schema_editor.execute(
        "UPDATE accounts_wallet SET lots_end = (SELECT MIN(l.expires_at) FROM accounts_creditlot l"
        " WHERE l.wallet_id = accounts_wallet.id AND l.unused > 0)"
    )


class Migration(migrations.Migration):
    dependencies = [("accounts", "0011_wallets_know_when_credit_ends")]

    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
