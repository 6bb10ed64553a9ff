"""Changes of settings, for the audit log: what is in force at a start, compared with what was at the start before.

The settings stand in a file that people edit, so nobody tells us of a change when it is made. What the last start saw is kept in
``run/settings-seen.json``: secrets only as salted hashes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping

from django.conf import settings

from llmplatform.lib import audit
from llmplatform.service.run_folder import replace_file

WITH_PASSWORD = re.compile(r"://[^/@]*:[^/@]*@")  # postgres://user:password@host


def note(read: Mapping[str, str]) -> None:
    """``read``: the settings by name. The first start has nothing to compare with."""
    path = settings.RUN_DIR / "settings-seen.json"
    try:
        seen = json.loads(path.read_text(encoding="utf-8"))
        salt, before = str(seen["salt"]), {name: dict(one) for name, one in seen["settings"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        salt, before = secrets.token_hex(16), None
    now = {name: _kept(name, value, salt) for name, value in sorted(read.items())}
    if before is not None:
        audit.record("settings.update", "settings", "", ".env", _told(before), _told(now))
    if now != before:
        replace_file(path, json.dumps({"salt": salt, "settings": now}, indent=1) + "\n", mode=0o600)


def _kept(name: str, value: str, salt: str) -> dict[str, str]:
    if value and (audit.is_secret(name) or WITH_PASSWORD.search(value)):
        return {"hash": hmac.new(salt.encode(), value.encode(), hashlib.sha256).hexdigest()}
    return {"value": value}


def _told(kept: Mapping[str, dict[str, str]]) -> dict[str, str]:
    return {name: one["value"] if "value" in one else audit.Secret(one.get("hash")) for name, one in kept.items()}
