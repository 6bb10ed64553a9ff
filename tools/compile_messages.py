#!/usr/bin/env python
"""Compile ``locale/*/LC_MESSAGES/*.po`` to ``.mo`` with polib, so that GNU gettext need not be installed.

``--check`` writes nothing and fails when a catalogue is incomplete, fuzzy, or its ``.mo`` is not what the ``.po`` compiles to.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polib

LOCALE_DIR = Path(__file__).resolve().parent.parent / "locale"


def compiled(path: Path) -> bytes:
    """The ``.mo`` of a catalogue: the same bytes for the same translations."""
    catalogue = polib.pofile(str(path))
    catalogue.metadata = {
        "Content-Type": "text/plain; charset=UTF-8",
        "Plural-Forms": catalogue.metadata.get("Plural-Forms", ""),
    }
    content: bytes = catalogue.to_binary()
    return content


def problems(path: Path) -> list[str]:
    catalogue = polib.pofile(str(path))
    found = [f"{path}: not translated: {entry.msgid!r}" for entry in catalogue.untranslated_entries()]
    found += [f"{path}: fuzzy: {entry.msgid!r}" for entry in catalogue.fuzzy_entries()]
    target = path.with_suffix(".mo")
    if not target.exists() or target.read_bytes() != compiled(path):
        found.append(f"{target} is not fresh: run python tools/compile_messages.py")
    return found


def main(arguments: list[str]) -> int:
    catalogues = sorted(LOCALE_DIR.glob("*/LC_MESSAGES/*.po"))
    if "--check" in arguments:
        found = [line for path in catalogues for line in problems(path)]
        print("\n".join(found) or "The catalogues are complete and compiled.")
        return 1 if found else 0
    for path in catalogues:
        path.with_suffix(".mo").write_bytes(compiled(path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
