#!/usr/bin/env python
"""Bring ``locale/*/LC_MESSAGES/django.po`` up to date with the sources, without GNU gettext.

What ``manage.py makemessages`` does for this project, with nothing in the catalogue that changes from run to run or from machine
to machine. New strings stay untranslated, gone ones are removed; translate, then run ``tools/compile_messages.py``.
``--check`` writes nothing and fails when a catalogue does not hold exactly the strings of the sources.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import polib
from django.utils.translation.template import templatize

ROOT = Path(__file__).resolve().parent.parent
APPS = ("accounts", "chat", "cluster", "gateway", "llmplatform", "models_app")
SINGULAR = {"_", "gettext", "gettext_lazy", "gettext_noop"}
PLURAL = {"ngettext", "ngettext_lazy"}
CONTEXT = {"pgettext", "pgettext_lazy"}
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-+#0]*[\d.]*[diouxXeEfFgGcrsa%]|\{\w*\}")
# templatize() writes each string of a template as one of these calls, among text of no meaning
TEMPLATE_CALL = re.compile(
    r"""\b(?:_|(?:np|n|p)?gettext)\((?:u?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')(?:,\s*)?)+(?:count)?\)"""
)
HEADER = {
    "Project-Id-Version": "LLM Platform",
    "Language": "",
    "MIME-Version": "1.0",
    "Content-Type": "text/plain; charset=UTF-8",
    "Content-Transfer-Encoding": "8bit",
    "Plural-Forms": "nplurals=1; plural=0;",
}

Key = tuple[str | None, str]  # context and string
Found = dict[Key, tuple[str, set[str]]]  # plural form, and the files it stands in


def _calls(code: str) -> Iterator[tuple[Key, str]]:
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if name in SINGULAR and texts:
            yield (None, texts[0]), ""
        elif name in PLURAL and len(texts) > 1:
            yield (None, texts[0]), texts[1]
        elif name in CONTEXT and len(texts) > 1:
            yield (texts[0], texts[1]), ""
        elif name == "npgettext" and len(texts) > 2:
            yield (texts[0], texts[1]), texts[2]


def python_files() -> Iterator[Path]:
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            if "tests" not in path.parts:
                yield path


def strings() -> Found:
    """Every string of the sources that is marked for translation."""
    found: Found = {}

    def take(code: str, path: Path) -> None:
        for key, plural in _calls(code):
            known, files = found.get(key, ("", set()))
            found[key] = (plural or known, files | {path.relative_to(ROOT).as_posix()})

    for path in python_files():
        take(path.read_text(encoding="utf-8"), path)
    templates = (path for path in (ROOT / "templates").rglob("*") if path.suffix in {".html", ".txt"})
    for path in sorted(templates):
        for call in TEMPLATE_CALL.findall(templatize(path.read_text(encoding="utf-8"))):
            take(call, path)
    return found


def _entry(key: Key, plural: str, files: set[str], old: polib.POEntry | None) -> polib.POEntry:
    entry = polib.POEntry(msgctxt=key[0], msgid=key[1], occurrences=[(name, "") for name in sorted(files)])
    if plural:
        entry.msgid_plural = plural
        entry.msgstr_plural = (old.msgstr_plural if old else None) or {0: old.msgstr if old else ""}
    else:
        entry.msgstr = (old.msgstr or old.msgstr_plural.get(0, "")) if old else ""
    if any(name.startswith("%") for name in placeholders(key[1] + plural)):
        entry.flags.append("python-format")
    return entry


def updated(path: Path, found: Found) -> polib.POFile:
    """The catalogue at ``path`` with exactly the strings found, translations kept."""
    old = {(entry.msgctxt, entry.msgid): entry for entry in polib.pofile(str(path))} if path.exists() else {}
    catalogue = polib.POFile(wrapwidth=100_000)
    catalogue.metadata = HEADER | {"Language": path.parents[1].name}
    order = sorted(found, key=lambda key: (min(found[key][1]), key[1], key[0] or ""))
    catalogue.extend(_entry(key, *found[key], old.get(key)) for key in order)
    return catalogue


def placeholders(text: str) -> list[str]:
    """What must stand in a translation as it stands in the string."""
    return sorted(PLACEHOLDER.findall(text))


def problems(path: Path, found: Found) -> list[str]:
    """The strings the catalogue lacks or holds in vain."""
    held = {(entry.msgctxt, entry.msgid) for entry in polib.pofile(str(path))}
    lines = [f"{path}: lacks {key[1]!r} of {', '.join(sorted(found[key][1]))}" for key in found if key not in held]
    return lines + [f"{path}: {key[1]!r} stands in no source any more" for key in held if key not in found]


def main(arguments: list[str]) -> int:
    found = strings()
    catalogues = sorted((ROOT / "locale").glob("*/LC_MESSAGES/django.po"))
    if "--check" in arguments:
        lines = [line for path in catalogues for line in problems(path, found)]
        print("\n".join(lines) or "The catalogues hold what the sources say.")
        return 1 if lines else 0
    for path in catalogues:
        catalogue = updated(path, found)
        catalogue.save(str(path))
        print(
            f"{path.relative_to(ROOT)}: {len(catalogue)} strings, {len(catalogue.untranslated_entries())} to translate"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
