"""Cuts the icon font of django-unfold (292 KB, 4,000 icons) down to the icons our console uses.

Run after an upgrade of django-unfold, or when a page uses a new icon:

    uv run --with fonttools --with brotli --with django-unfold tools/console_icons.py

Writes ``static/console/icons.woff2`` (Material Symbols, Apache-2.0; the licence lies beside it) and ``icons.txt``, the names in
it, which a test compares with the templates.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "static" / "console"
WORD = re.compile(r"[a-z][a-z0-9_]{2,}")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_ "


def unfold_folder() -> Path:
    spec = find_spec("unfold")
    if spec is None or spec.origin is None:
        raise SystemExit("django-unfold is not installed")
    return Path(spec.origin).parent


def ligatures(font: TTFont) -> dict[str, str]:
    """Icon names and their glyphs."""
    letters = {glyph: chr(code) for code, glyph in font.getBestCmap().items() if chr(code) in LETTERS}
    found = {}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in (getattr(part, "ExtSubTable", part) for part in lookup.SubTable):
            for first, entries in getattr(table, "ligatures", {}).items():
                for entry in entries:
                    name = "".join(letters.get(glyph, "?") for glyph in [first, *entry.Component])
                    found[name] = entry.LigGlyph
    return found


def used_words(unfold: Path) -> Iterator[str]:
    """Every word that stands where an icon may be named; too many rather than too few, an icon is 100 bytes."""
    folders = [unfold / "templates", ROOT / "templates"]
    files = [file for folder in folders for file in folder.rglob("*.html")]
    files += [unfold / "sites.py", unfold / "templatetags" / "unfold.py"]
    files += [
        file for app in ("accounts", "cluster", "models_app", "llmplatform") for file in (ROOT / app).rglob("*.py")
    ]
    for file in files:
        yield from WORD.findall(file.read_text(encoding="utf-8"))


def main() -> None:
    unfold = unfold_folder()
    source = unfold / "static" / "unfold" / "fonts" / "material-symbols"
    font = TTFont(source / "Material-Symbols-Outlined.woff2")
    icons = ligatures(font)
    names = sorted(set(used_words(unfold)) & set(icons))
    options = subset.Options(layout_closure=False, layout_features=["*"], flavor="woff2", notdef_outline=True)
    cutter = subset.Subsetter(options)
    cutter.populate(text=LETTERS, glyphs=[icons[name] for name in names])
    cutter.subset(font)
    subset.save_font(font, str(TARGET / "icons.woff2"), options)
    (TARGET / "icons.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    shutil.copy(source / "LICENSE", TARGET / "icons.LICENSE")


if __name__ == "__main__":
    main()
