#!/usr/bin/env python3
"""Many clients who leave at any moment, replicas and the web server killed under them: is every token paid for, once?

    python bench/ledger_load.py [--requests 10000] [--clients 64] [--engine-kills 5] [--web-kills 1] [--postgres]

A real service (``manage.py serve``) with three replicas, whose engines are stand-ins that note what they read and delivered. What
they noted and what each client saw is held against the ledger, down to the micro-credit. ``--postgres`` needs PostgreSQL's
server programs. The same with a few hundred requests is a test: tests/test_ledger_under_load.py.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import ledger_load
from tests.postgres_server import running_postgres


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--engine-kills", type=int, default=5)
    parser.add_argument("--web-kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="instead of SQLite")
    wanted = parser.parse_args()
    size = ledger_load.Size(wanted.requests, wanted.clients, wanted.engine_kills, wanted.web_kills, wanted.seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        changes = {"DATABASE_URL": stack.enter_context(running_postgres()).url} if wanted.postgres else {}
        service = stack.enter_context(ledger_load.service(Path(folder), **changes))
        began = time.monotonic()
        outcome = ledger_load.run(service, size, Path(folder, "journal"))
        took = time.monotonic() - began
    name = "PostgreSQL" if wanted.postgres else "SQLite"
    kills = f"{size.engine_kills} replicas and {size.web_kills} web servers killed"
    print(f"{name}: {len(outcome.asked):,} requests of {size.clients} clients in {took:.0f} s, {kills}")
    print("  ended: " + ", ".join(f"{count} × {what}" for what, count in outcome.by_status().items()))
    books = outcome.books
    print(
        f"  settled {books['settled']:,}, in usage records {books['recorded']:,}, in sums by the hour {books['summed']:,}"
    )
    for what, count in outcome.findings().items():
        print(f"  {what:62}{count:>12,}")
    print(f"  {'(prompts not counted yet when the web server was killed)':62}{outcome.prompts_lost_to_kills():>12,}")
    for problem in books["problems"]:
        print("  " + problem)
    return int(any(outcome.findings().values()))


if __name__ == "__main__":
    sys.exit(main())
