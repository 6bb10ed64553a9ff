"""When the next of a wallet's lots ends, in its row."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0010_rotated_keys_share_a_budget")]

    operations = [
        migrations.AddField(
            model_name="wallet",
            name="lots_end",
            field=models.DateTimeField(editable=False, null=True),
        ),
    ]
