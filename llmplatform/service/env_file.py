"""Changing one setting in ``.env`` and nothing else."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from llmplatform.service.run_folder import replace_file


def set_value(path: Path, name: str, value: str, today: date) -> None:
    """Comments, order and other settings stay; what was set before stays as a comment. The file is replaced as a whole, readable
    by its owner only. ``value`` must need no quotes. Raises OSError."""
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    setting = re.compile(rf"^(?:export\s+)?{re.escape(name)}\s*=")
    lines, done = [], False
    for line in text.splitlines():
        if not setting.match(line.lstrip()):
            lines.append(line)
            continue
        lines.append(f"# until {today.isoformat()}: {line.strip()}")
        if not done:
            lines.append(f"{name}={value}")
            done = True
    if not done:
        lines.append(f"{name}={value}")
    replace_file(path, "\n".join(lines) + "\n", 0o600)
