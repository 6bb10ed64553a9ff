"""Keys that came of one another by rotation have one budget, counted in the row of the first one."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db import migrations


def join_chains(apps: Any, schema_editor: Any) -> None:
    keys = apps.get_model("accounts", "ApiKey").objects
    chains: dict[int, list[Any]] = defaultdict(list)
    root_of: dict[int, int] = {}
    for key in keys.exclude(replaces=None).order_by("pk"):
        root_of[key.pk] = root_of.get(key.replaces_id, key.replaces_id)
        chains[root_of[key.pk]].append(key)
    for root_id, rotations in chains.items():
        newest = rotations[-1]
        chain = [keys.get(pk=root_id), *rotations]
        started = max((key.budget_started for key in chain if key.budget_started), default=None)
        # Each had the count of the one before it, and its own: the largest is what was surely used.
        used = max(key.budget_used for key in chain if key.budget_started == started)
        same = {"budget": newest.budget, "budget_period": newest.budget_period}
        keys.filter(pk__in=[key.pk for key in rotations]).update(
            root_id=root_id, budget_used=0, budget_started=None, **same
        )
        keys.filter(pk=root_id).update(budget_used=used, budget_started=started, **same)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0009_keys_know_their_root")]

    operations = [migrations.RunPython(join_chains, migrations.RunPython.noop)]
