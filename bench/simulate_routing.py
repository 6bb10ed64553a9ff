#!/usr/bin/env python3
"""Which replica gets a request, simulated: hit rate, time to the first token and fairness of each policy, and what a decision
takes.

    python bench/simulate_routing.py [--only WORD] [--seeds 3] [--trace FILE] [--full] [--plot docs/routing.svg]

The gateway's own pool (line, router, fleet, expectations) is driven in told time; clients and llama-servers are simulated
(bench/simulated: how, and from which distributions). Each load is asked of each policy with the same seeds. ``--trace``: a
recorded load instead (JSON lines, see ``bench.simulated.traces.recorded``). ``--full``: 10,000 replicas on 1,000 machines,
about ten minutes.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if TYPE_CHECKING:
    from bench.simulated.traces import Conversation
    from bench.simulated.world import Outcome, Park

POLICIES = ("cost", "least_busy", "round_robin", "hash")
BURST_KEPT = "cost, burst kept together"
WANTED_MICROSECONDS, WANTED_MEGABYTES = 50, 200


def set_up() -> tempfile.TemporaryDirectory[str]:
    """The gateway's modules want Django's settings, though nothing of the database is used."""
    folder = tempfile.TemporaryDirectory()
    secret = "not-a-secret-" * 4
    os.environ.update(
        DJANGO_SETTINGS_MODULE="llmplatform.settings", LLM_HOME=folder.name, JWT_SECRET=secret, SECRET_KEY=secret
    )
    import django

    django.setup()
    return folder


# -- figures -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Row:
    scenario: str
    policy: str
    hit: float
    median: float
    p95: float
    p99: float
    total: float
    light: float
    jain: float
    failed: int
    microseconds: float


def quantile(values: Iterable[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def row(scenario: str, policy: str, outcomes: Sequence[Outcome]) -> Row:
    """Of all seeds together."""
    seen = [one for outcome in outcomes for one in outcome.requests]
    tokens, seconds, count = defaultdict[int, float](float), defaultdict[int, float](float), defaultdict[int, int](int)
    for one in seen:
        tokens[one.user] += one.prompt + one.answer
        seconds[one.user] += one.total
        count[one.user] += 1
    heaviest = max(count, key=count.__getitem__)
    rates = [tokens[user] / seconds[user] for user in tokens]
    first = [one.first for one in seen]
    return Row(
        scenario,
        policy,
        sum(one.cached for one in seen) / sum(one.prompt for one in seen),
        quantile(first, 0.5),
        quantile(first, 0.95),
        quantile(first, 0.99),
        quantile((one.total for one in seen), 0.5),
        quantile((one.first for one in seen if one.user != heaviest), 0.95),
        sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates)),
        sum(outcome.failed for outcome in outcomes),
        1e6 * statistics.median(taken for outcome in outcomes for taken in outcome.decisions),
    )


# -- loads -------------------------------------------------------------------------------------------------------------
def scenarios() -> dict[str, tuple[Park, object]]:
    """What they are named after differs from the first: 16 replicas of 4 slots on 8 machines, about two thirds of what they
    can do."""
    from bench.simulated.replica import Machine
    from bench.simulated.traces import Load
    from bench.simulated.world import Park

    few, talk = Park(), {"conversations": 300, "rate": 0.5}
    one_slot, sixteen = Machine(slots=1), Machine(slots=16)
    return {
        "multi-turn": (few, Load(**talk)),
        "multi-turn, long first prompts": (few, Load(conversations=300, rate=0.25, first=(1500, 0.6))),
        "all different, one turn": (few, Load(conversations=1500, turns=1, rate=2, first=(600, 0.8))),
        "one system prompt, one turn": (few, Load(conversations=1500, turns=1, rate=3.5, system=800, first=(100, 0.8))),
        "20 system prompts, two turns": (
            few,
            Load(conversations=600, turns=2, rate=1.2, system=1500, systems=20, first=(60, 0.8)),
        ),
        "one hot user": (few, Load(**talk, hot=0.3)),
        "burst of 16 with one prefix": (few, Load(conversations=16, burst=True, turns=1, system=2000, first=(50, 0.5))),
        "burst of 64 with one prefix": (few, Load(conversations=64, burst=True, turns=1, system=2000, first=(50, 0.5))),
        "burst of 64 with one prefix, three turns": (
            few,
            Load(conversations=64, burst=True, turns=3, system=2000, first=(50, 0.5)),
        ),
        "long-tailed answers": (few, Load(conversations=600, turns=2, rate=1, answer=(80, 1.5))),
        "a quarter of the machines slow": (Park(slow=0.25), Load(conversations=300, rate=0.4)),
        "machines that differ by 10 %": (Park(spread=0.1), Load(**talk)),
        "machines that die": (Park(deaths=6, span=600), Load(conversations=300, rate=0.4)),
        "a replica that fails at once": (Park(failing=1), Load(conversations=300, rate=0.4)),
        "nearly idle": (Park(spread=0.1), Load(conversations=200, rate=0.1)),
        "nearly idle, long pauses, machines that differ by 30 %": (
            Park(spread=0.3),
            Load(conversations=200, rate=0.1, think=1000),
        ),
        "one system prompt that nobody has read, 4 replicas": (
            Park(4, 4, Machine(slots=2, reading=140)),
            Load(conversations=48, turns=1, rate=0.4, system=1000, first=(25, 0.3), answer=(16, 0.3)),
        ),
        "more than they can do": (few, Load(conversations=400, rate=1.5)),
        "one slot each": (Park(machine=one_slot), Load(conversations=300, rate=0.3)),
        "16 slots each, 4 replicas": (Park(4, 4, sixteen), Load(conversations=300, rate=0.12)),
        "no host cache": (Park(machine=Machine(host=0, similarity=0.1)), Load(conversations=300, rate=0.4, think=60)),
        "large host cache": (Park(machine=Machine(host=60_000)), Load(**talk, think=60)),
    }


def large(replicas: int, nodes: int, conversations: int) -> tuple[Park, object]:
    from bench.simulated.traces import Load
    from bench.simulated.world import Park

    load = Load(conversations=conversations, rate=replicas / 40, system=300, systems=50)
    return Park(replicas, nodes, slow=0.05, spread=0.1, deaths=nodes // 50, span=conversations / load.rate), load


def run(park: Park, policy: str, load: Sequence[Conversation], seed: int) -> Outcome:
    from bench.simulated.world import World
    from cluster.balancer import Policy

    kept = policy == BURST_KEPT
    return World(park, Policy("cost" if kept else policy), seed, is_burst_kept=kept).run(load)


def compare(name: str, park: Park, load: object, seeds: int, policies: Sequence[str] = POLICIES) -> list[Row]:
    from bench.simulated.traces import made_up

    rows = []
    for policy in policies:
        rows.append(row(name, policy, [run(park, policy, made_up(load, seed), seed) for seed in range(1, seeds + 1)]))
        print_row(rows[-1])
    return rows


# -- what a decision takes ---------------------------------------------------------------------------------------------
def decisions(replicas: int = 1000, chains: int = 100_000) -> str:
    """Among so many replicas that remember so many conversations of ten parts each, with one system prompt."""
    from cluster.balancer import Request
    from cluster.fleet import Fleet
    from cluster.prefixes import Prompt

    chance, system = random.Random(1), 1
    sizes, answers = (
        tuple(500 * (part + 1) for part in range(10)),
        tuple(part % 2 == 0 and part > 0 for part in range(10)),
    )
    gc.collect()
    tracemalloc.start()
    fleet = Fleet(most_entries=2 * 10 * chains)
    for number in range(replicas):
        fleet.put(number, 4)
    asked = []
    for _ in range(chains):
        prompt = Prompt((system, *(chance.getrandbits(64) for _ in range(9))), sizes, answers)
        fleet.prefixes.remember(prompt, 1 + chance.randrange(replicas))
        if chance.random() < 5000 / chains:
            asked.append(prompt)
    megabytes = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    taken, leases = [], []
    for number in range(20_000):
        now, prompt = number / 1000, chance.choice(asked)
        began = time.thread_time()
        choice = fleet.choose(Request(1250, 200), now, prompt)
        taken.append(time.thread_time() - began)
        if choice is not None and choice.member.is_free:
            leases.append(fleet.take(choice, now, prompt))
        if len(leases) > 2 * replicas:
            fleet.give_back(leases.pop(chance.randrange(len(leases))), now)
    return (
        f"decision, {replicas:,} replicas, {chains:,} chains of ten parts: {1e6 * quantile(taken, 0.5):.0f} µs median, "
        f"{1e6 * quantile(taken, 0.99):.0f} µs p99 (wanted ≤ {WANTED_MICROSECONDS}); {megabytes:.0f} MB "
        f"(wanted ≤ {WANTED_MEGABYTES})"
    )


# -- telling -----------------------------------------------------------------------------------------------------------
def print_head(title: str) -> None:
    print(f"\n{title}\n")
    print(
        "| load | policy | hit rate | first token, s: median | p95 | p99 | whole answer: median | p95 of light users"
        " | Jain | failed | decision, µs |"
    )
    print("|" + "---|" * 11)


def print_row(row: Row) -> None:
    print(
        f"| {row.scenario} | {row.policy} | {row.hit:.0%} | {row.median:.2f} | {row.p95:.2f} | {row.p99:.2f} | "
        f"{row.total:.2f} | {row.light:.2f} | {row.jain:.2f} | {row.failed} | {row.microseconds:.0f} |",
        flush=True,
    )


def worse_than_least_busy(rows: Sequence[Row]) -> list[str]:
    other = {row.scenario: row for row in rows if row.policy == "least_busy"}
    found = []
    for row in rows:
        for name in ("median", "p95"):
            ours, theirs = getattr(row, name), getattr(other[row.scenario], name)
            if row.policy == "cost" and ours > 1.01 * theirs:
                found.append(f"{row.scenario}: {name} {ours:.2f} s, least_busy {theirs:.2f} s")
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="loads whose name has this in it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trace", type=Path, help="a recorded load")
    parser.add_argument("--replicas", type=int, default=16, help="for a recorded load")
    parser.add_argument("--full", action="store_true", help="10,000 replicas on 1,000 machines")
    parser.add_argument("--plot", type=Path, help="write an SVG file")
    return parser.parse_args()


def main() -> None:
    wanted = arguments()
    folder = set_up()
    with folder:
        began = time.monotonic()
        if wanted.trace is not None:
            replay(wanted.trace, wanted.replicas)
        elif wanted.full:
            print_head("10,000 replicas of 4 slots on 1,000 machines")
            compare("multi-turn, 50 system prompts", *large(10_000, 1000, 3_000), 1)
        else:
            everything(wanted)
        print(f"\n{time.monotonic() - began:.0f} s")


def replay(trace: Path, replicas: int) -> None:
    from bench.simulated.traces import recorded
    from bench.simulated.world import Park

    print_head(f"{trace}, {replicas} replicas")
    for policy in POLICIES:
        print_row(row(trace.stem, policy, [run(Park(replicas, replicas), policy, recorded(trace), 1)]))


def everything(wanted: argparse.Namespace) -> None:
    print_head("16 replicas of 4 slots on 8 machines, unless said")
    rows: list[Row] = []
    for name, (park, load) in scenarios().items():
        if wanted.only in name:
            policies = (*POLICIES, BURST_KEPT) if "burst" in name else POLICIES
            rows += compare(name, park, load, wanted.seeds, policies)
    if not wanted.only:
        print_head("1,000 replicas of 4 slots on 100 machines")
        rows += compare("1,000 replicas", *large(1000, 100, 700), 1)
        print(f"\n{decisions()}")
    worse = worse_than_least_busy(rows)
    print("\ncost is worse than least_busy: " + ("; ".join(worse) if worse else "nowhere, at the median or p95"))
    if wanted.plot is not None:
        from bench.simulated.plot import bars

        wanted.plot.write_text(bars(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
