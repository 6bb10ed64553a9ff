"""``DATABASE_URL`` to Django's ``DATABASES`` entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dj_database_url

from llmplatform.lib.configuration import ConfigurationError
from llmplatform.lib.early_messages import translate as _

# WAL lets readers go on while one writes; IMMEDIATE takes the write lock when the transaction begins, so that two writers
# wait for each other instead of failing half-way with "database is locked"; synchronous=NORMAL is safe under WAL.
SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 30,
    "init_command": (
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; "
        "PRAGMA cache_size=-16000; PRAGMA temp_store=MEMORY; PRAGMA journal_size_limit=67108864;"
    ),
}
ENGINES = {"django.db.backends.sqlite3", "django.db.backends.postgresql"}


def parse(url: str, home: Path) -> dict[str, Any]:
    """``sqlite3://./llm.db`` and ``sqlite:///…`` are paths seen from the service's folder; the rest as dj-database-url has it.

    Raises ConfigurationError for a URL that is not understood.
    """
    scheme, _separator, rest = url.partition("://")
    if scheme in {"sqlite", "sqlite3"} and rest.strip("/"):
        # Three slashes are the usual form of a relative path, four of an absolute one; the guide's own form has two.
        path = rest[1:] if rest.startswith("/") and len(rest) > 1 else rest
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(home / path),
            "OPTIONS": dict(SQLITE_OPTIONS),
        }
    try:
        if not rest.strip("/"):
            raise ValueError(url)
        # Under ASGI each request may run in a new thread: a connection kept open for the next request would never be found.
        parsed = dict(dj_database_url.parse(url, conn_max_age=0))
        if parsed["ENGINE"] not in ENGINES:
            raise ValueError(url)
    except (ValueError, KeyError) as error:
        raise ConfigurationError(
            _(
                "DATABASE_URL is not understood; write for example sqlite3://./llm.db or postgres://user:password@host/name"
            )
        ) from error
    return parsed
