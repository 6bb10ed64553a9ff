"""Which key was the first of a chain of rotations."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0008_second_factor_and_single_sign_on")]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="root",
            field=models.ForeignKey(
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="rotations",
                to="accounts.apikey",
            ),
        ),
    ]
