"""``python -m llmplatform.service.icon_cutter TARGET FONT``: writes FONT with no other icons than those named on standard input.

An icon is a ligature: its name, written out, is drawn as one glyph.
"""

from __future__ import annotations

import sys

from fontTools import subset
from fontTools.ttLib import TTFont

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_ "


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


def cut(source: str, target: str, words: set[str]) -> None:
    font = TTFont(source)
    glyphs = [glyph for name, glyph in ligatures(font).items() if name in words]
    options = subset.Options(layout_closure=False, layout_features=["*"], flavor="woff2", notdef_outline=True)
    cutter = subset.Subsetter(options)
    cutter.populate(text=LETTERS, glyphs=glyphs)
    cutter.subset(font)
    subset.save_font(font, target, options)


if __name__ == "__main__":
    cut(sys.argv[2], sys.argv[1], set(sys.stdin.read().split()))
