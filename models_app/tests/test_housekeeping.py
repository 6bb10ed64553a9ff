"""What the supervisor does besides."""

from __future__ import annotations

from types import SimpleNamespace

from models_app import housekeeping
from models_app.housekeeping import Housekeeping


async def test_sweeps_that_did_not_finish_go_on_soon(monkeypatch):
    now, calls, results = [1000.0], [], [True, True, False]
    monkeypatch.setattr(housekeeping, "time", SimpleNamespace(monotonic=lambda: now[0]))

    async def nothing(_self):
        return None

    monkeypatch.setattr(housekeeping, "heartbeat_this_machine", lambda: None)
    monkeypatch.setattr(housekeeping.Housekeeping, "_measure", nothing)
    monkeypatch.setattr(housekeeping.Housekeeping, "_look_at_joined_machines", lambda self: None)

    def run() -> bool:
        calls.append(now[0])
        return results[len(calls) - 1] if len(calls) <= len(results) else False

    monkeypatch.setattr(housekeeping.sweeps, "run", run)
    keeping = Housekeeping()
    while now[0] < 1080:
        await keeping.step([])
        now[0] += 1
    assert calls == [1000, 1005, 1010, 1070]
