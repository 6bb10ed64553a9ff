"""The icon font holds what the templates name; Unfold's untranslated words are all known to our catalogue."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from django.utils import translation
from django.utils.translation import template
from fontTools.ttLib import TTFont

from llmplatform.console.strings import UNFOLD_STRINGS
from llmplatform.service import console_icons
from llmplatform.service.icon_cutter import ligatures

ROOT = Path(__file__).resolve().parents[2]
UNFOLD = Path(find_spec("unfold").origin).parent
ICON = re.compile(r'<span class="[^"]*material-symbols-outlined[^"]*"[^>]*>\s*([a-z][a-z0-9_]+)\s*</span>')
NAMED = re.compile(r"""\bicon=["']([a-z][a-z0-9_]+)["']|_item\(_\("[^"]+"\), "([a-z0-9_]+)\"""")
TEXT = re.compile(r"""\b(?:gettext|gettext_lazy|_)\(\s*u?("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
# Built out of several pieces, and on a page that we do not use.
UNUSED = {"Raw passwords are not stored, so there is no way to see this "}


def icon_names() -> set[str]:
    html = [*UNFOLD.glob("templates/**/*.html"), *ROOT.glob("templates/**/*.html")]
    python = [*ROOT.glob("*/admin.py"), *ROOT.glob("llmplatform/lib/console/*.py")]
    found = {name for file in html for name in ICON.findall(file.read_text(encoding="utf-8"))}
    return found | {one or two for file in python for one, two in NAMED.findall(file.read_text(encoding="utf-8"))}


def test_every_icon_is_in_the_font_that_is_made(tmp_path: Path):
    target = tmp_path / "icons.woff2"
    console_icons.make(target)
    wanted = icon_names()
    assert {"dashboard", "play_circle", "close"} <= wanted
    assert wanted - set(ligatures(TTFont(target))) == set()
    assert target.stat().st_size < 40_000
    made = target.stat().st_mtime_ns
    console_icons.make(target)
    assert target.stat().st_mtime_ns == made  # nothing has changed


def test_the_whole_font_is_used_when_it_cannot_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console_icons.sys, "executable", "/bin/false")
    console_icons.make(tmp_path / "icons.woff2")
    assert (tmp_path / "icons.woff2").read_bytes() == (UNFOLD / console_icons.FONT).read_bytes()


def unfold_texts() -> set[str]:
    files = [*UNFOLD.glob("*.py"), *UNFOLD.glob("templatetags/*.py"), *UNFOLD.glob("mixins/*.py")]
    sources = [file.read_text(encoding="utf-8") for file in files]
    sources += [template.templatize(file.read_text(encoding="utf-8")) for file in UNFOLD.glob("templates/**/*.html")]
    return {ast.literal_eval(text) for source in sources for text in TEXT.findall(source)}


@pytest.mark.parametrize("language", ["zh-hans"])
def test_every_text_of_unfold_is_translated_or_known(language: str):
    with translation.override(language):
        missing = {
            text for text in unfold_texts() if re.search("[A-Za-z]{2}", text) and translation.gettext(text) == text
        }
    assert missing - set(UNFOLD_STRINGS) - UNUSED == set(), "add them to llmplatform/console/strings.py"
