"""Half an hour's worth of trouble, compressed: processes killed and frozen, settings and files changed, ports taken, while people
ask. In the end what runs is what is wanted, nothing is left behind, and every request has had an answer or a clear error.

    LLM_CHAOS_MINUTES=10 LLM_CHAOS_SEED=7 python -m pytest -s tests/chaos        the long form

A minute's worth is 12 events. How long they take depends on how soon the machine is up again after each.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.chaos import checks, deeds
from tests.chaos.clients import Clients
from tests.chaos.schedule import ROUND, Event, schedule
from tests.chaos.world import World
from tests.ledger_load import make_keys
from tests.running_service import new_service, put_prepared_files, put_starter_model, wait_for

EVENTS_A_MINUTE = 12
MINUTES = float(os.environ.get("LLM_CHAOS_MINUTES") or 0.35)
SEED = int(os.environ.get("LLM_CHAOS_SEED") or 22432)
TICK = 0.1
UP_AGAIN = 30.0  # seconds; then a patient event comes all the same
# Shorter than in real life: how long somebody waits for a model that is starting, and for a slot.
WAITS = {"MODEL_WAIT_SECONDS": "8", "QUEUE_WAIT_SECONDS": "20"}

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600 + 300 * MINUTES)]


def test_everything_happens_in_each_round() -> None:
    assert {event.what for event in schedule(SEED, sum(ROUND.values()))} == set(ROUND) == set(deeds.DEEDS)
    assert schedule(SEED, 60) == schedule(SEED, 60) != schedule(SEED + 1, 60)


@pytest.fixture
def service(tmp_path):
    home = tmp_path / "home"
    put_prepared_files(home)
    put_starter_model(home / "models")
    service = new_service(home, STARTER_MODEL="none", **WAITS)
    yield service
    service.kill_what_is_left()


def test_after_the_storm(service) -> None:
    events = schedule(SEED, round(EVENTS_A_MINUTE * MINUTES))
    world = World(service)
    world.put_models()
    service.start()
    for name in ("chat", "embedder", "reranker"):
        wait_for(lambda name=name: service.model_is_ready(name), name, 120)
    keys = list(make_keys(service, {f"person{number}": {} for number in range(3)}).values())
    try:
        with world:
            with Clients(service, keys, SEED, world.began) as clients:
                go_through(world, events)
                checks.calm_down(world)
                calm, serving = world.now, checks.serving(world)
                wait_for(lambda: clients.all_answered(calm, serving) or world.findings, "answers of every kind", 60)
            found = checks.findings(world, clients.asked)
        assert service.stop() == 0, service.output
        found += [f"left after the end: {process.cmdline()}" for process in service.processes()]
    finally:
        print(f"\nseed {SEED}, {MINUTES} minutes, {len(events)} events", *world.notes, sep="\n")
    print(clients.counted())
    assert not found, "\n".join(found)


def go_through(world: World, events: list[Event]) -> None:
    for event in events:
        begin = world.now
        while world.now < begin + event.gap or (event.patient and world.now < begin + UP_AGAIN and not world.is_up()):
            world.step()
            time.sleep(TICK)
        deeds.do(world, event)
