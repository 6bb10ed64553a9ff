"""Whatever happens in whatever order, the ledger stays right and nobody is charged twice, wrongly or not at all.

Here on SQLite; ``test_quota_race`` runs the same machine on PostgreSQL, and everything at once in several processes on both.
"""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from accounts.tests.ledger_machine import EFFORT, Ledger


@pytest.mark.timeout(600)  # some ten thousand queries
@pytest.mark.django_db
def test_no_sequence_of_events_breaks_the_ledger() -> None:
    run_state_machine_as_test(Ledger, settings=EFFORT)
