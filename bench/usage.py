#!/usr/bin/env python3
"""How long pages about usage and balances take when there were very many requests.

    python bench/usage.py [--requests 100000 10000000] [--database postgres://…] [--folder DIR]

Fills a database of its own to each number of requests in turn (bench/seed.py: a usage record, two ledger entries and its part of
the sums by the hour for each; 500 people over a year, a tenth of them at work in each hour) and asks the endpoints in a process
without a network. Prints the median of nine calls and the first, which reads from disk what the others find in memory.

SQLite by default, in a folder that is removed afterwards; ten million requests take about ten gigabytes. ``--database``: an
empty PostgreSQL database instead, which is left as it is then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CALLS = 9
SEED = ("--username", "person", "--users", "500", "--days", "365", "--conversations", "0")
WANTED = {"balance": 100, "usage, first page, own": 100, "usage, first page, everybody's": 100}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, nargs="+", default=[100_000, 10_000_000])
    parser.add_argument("--database", default="", help="postgres://user:password@host/name of an empty database")
    parser.add_argument("--folder", type=Path, help="where the SQLite database is made and left")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    wanted = arguments()
    if wanted.measure:
        print(json.dumps(measured()))
        return
    folder = wanted.folder or Path(tempfile.mkdtemp(prefix="bench-usage-"))
    folder.mkdir(parents=True, exist_ok=True)
    secret = "not-a-secret-" * 4
    (folder / ".env").write_text(f"JWT_SECRET={secret}\nSECRET_KEY={secret}\n", encoding="utf-8")
    environment = {**os.environ, "LLM_HOME": str(folder)}
    if wanted.database:
        environment["DATABASE_URL"] = wanted.database
    try:
        there = 0
        for requests in sorted(wanted.requests):
            run(environment, "seed.py", *SEED, "--usage", str(requests - there), "--operator")
            there = requests
            show(requests, json.loads(run(environment, "usage.py", "--measure").splitlines()[-1]))
    finally:
        if wanted.folder is None:
            shutil.rmtree(folder)


def run(environment: dict[str, str], script: str, *options: str) -> str:
    command = [sys.executable, str(ROOT / "bench" / script), *options]
    if script == "seed.py":
        subprocess.run(command, env=environment, check=True)
        return ""
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def show(requests: int, figures: dict[str, Any]) -> None:
    print(f"\n{requests:,} requests, {figures['hours']:,} sums by the hour, {figures['entries']:,} ledger entries")
    print(f"{'':42}{'median':>10}{'first':>10}{'wanted':>10}")
    for name, (median, first) in figures["times"].items():
        limit = f"≤ {WANTED[name]} ms" if name in WANTED else ""
        print(f"{name:42}{median:>7.0f} ms{first:>7.0f} ms{limit:>10}", flush=True)


# -- in the process that measures ----------------------------------------------------------------------------------------


def measured() -> dict[str, Any]:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
    import django

    django.setup()
    from django.conf import settings
    from django.test import Client

    from accounts.models import LedgerEntry, UsageHour, User

    settings.ALLOWED_HOSTS = ["testserver"]
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    operator, own = Client(), Client()
    own.get("/api/v1/models")  # what is loaded at the very first request of a process is no part of any figure
    operator.force_login(User.objects.get(username="person"))
    own.force_login(User.objects.get(username="person-7"))
    times = {name: _timed(own if client == "own" else operator, path) for name, client, path in paths()}
    return {"hours": UsageHour.objects.count(), "entries": LedgerEntry.objects.count(), "times": times}


def paths() -> list[tuple[str, str, str]]:
    from accounts import usage_periods

    month = usage_periods.named("last_month")
    period = f"since={month.first}&until={month.last + usage_periods.ONE_DAY}"
    report = f"/api/v1/usage/report?{period}&by="
    return [
        ("balance", "own", "/api/v1/auth/me"),
        ("usage, first page, own", "own", "/api/v1/usage"),
        ("usage, first page, everybody's", "operator", "/api/v1/usage"),
        ("ledger, first page, own", "own", "/api/v1/ledger"),
        ("ledger, first page, everybody's", "operator", "/api/v1/ledger"),
        ("report of last month by user", "operator", f"{report}user&limit=10"),
        ("report of last month by key", "operator", f"{report}key&limit=10"),
        ("report of last month by day", "operator", f"{report}day"),
        ("report of last month by model, own", "own", f"{report}model"),
        ("page /account/usage", "own", "/account/usage"),
        ("console: usage report, last month", "operator", "/admin/usage/?period=last_month"),
        ("console: usage report, last 30 days by day", "operator", "/admin/usage/?by=day"),
        ("console: requests", "operator", "/admin/accounts/usagerecord/"),
        ("console: requests of a group", "operator", "/admin/accounts/usagerecord/?group=3"),
    ]


def _timed(client: Any, path: str) -> tuple[float, float]:
    def call() -> float:
        began = time.perf_counter()
        answer = client.get(path)
        took = 1000 * (time.perf_counter() - began)
        if answer.status_code != 200:
            raise SystemExit(f"{path}: {answer.status_code}")
        return took

    return _median(call)


def _median(call: Callable[[], float]) -> tuple[float, float]:
    first = call()
    return statistics.median(call() for _ in range(CALLS)), first


if __name__ == "__main__":
    main()
