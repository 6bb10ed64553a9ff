"""The catalogues hold every string of the sources, translated, with the same placeholders, and compiled as they are."""

from __future__ import annotations

import re
from pathlib import Path

import django
import polib
import pytest

from llmplatform.lib import early_messages
from tools import compile_messages, extract_messages

ROOT = Path(__file__).resolve().parent.parent
CATALOGUES = sorted((ROOT / "locale").glob("*/LC_MESSAGES/django.po"))
HAN = re.compile(r"[\u4e00-\u9fff]")
# Said the same in Chinese.
SAME = {
    "English",
    "Tokens",
    "%(ready)d of %(wanted)d",
    "%(title)s: %(total)s",
    "{n} tokens",
    "%(count)s tokens",
    "%(key)s %(problem)s",
    "%(finding)s: %(remedy)s",
}


# Pages of Django's own that say these get our words too, and mean the same by them.
OURS_ALSO_FOR_DJANGO = {
    "Action",
    "Add %(name)s",
    "Email address",
    "English",
    "Log out",
    "Remove",
    "Your password can’t be a commonly used password.",
    "Your password can’t be entirely numeric.",
    "Your password can’t be too similar to your other personal information.",
    "active",
    "email address",
    "group",
    "groups",
}


def test_there_is_a_chinese_catalogue():
    assert [path.parents[1].name for path in CATALOGUES] == ["zh_Hans"]


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parents[1].name)
def test_complete_and_compiled(path: Path):
    assert compile_messages.problems(path) == []


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parents[1].name)
def test_up_to_date_with_the_sources(path: Path):
    assert extract_messages.problems(path, extract_messages.strings()) == [], "run python tools/extract_messages.py"


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parents[1].name)
def test_placeholders_are_kept(path: Path):
    for entry in polib.pofile(str(path)):
        for text in entry.msgstr_plural.values() if entry.msgid_plural else [entry.msgstr]:
            wanted = extract_messages.placeholders(entry.msgid_plural or entry.msgid)
            assert extract_messages.placeholders(text) == wanted, entry.msgid


def test_chinese_is_chinese():
    for entry in polib.pofile(str(CATALOGUES[0])):
        text = entry.msgstr or entry.msgstr_plural.get(0, "")
        assert HAN.search(text) or entry.msgid in SAME, entry.msgid


@pytest.mark.parametrize("part", ["conf", "contrib/admin", "contrib/auth"])
def test_what_django_says_keeps_its_meaning(part: str):
    """Our catalogue is asked first, also for Django's pages: a word that means something else here needs a context."""
    theirs = Path(django.__file__).parent / part / "locale/zh_Hans/LC_MESSAGES/django.po"
    said = {entry.msgid: entry.msgstr for entry in polib.pofile(str(theirs)) if not entry.msgctxt and entry.msgstr}
    ours = {entry.msgid: entry.msgstr for entry in polib.pofile(str(CATALOGUES[0])) if not entry.msgctxt}
    differing = {text for text in said.keys() & ours if said[text] != ours[text]}
    assert differing <= OURS_ALSO_FOR_DJANGO


def test_nothing_in_a_catalogue_changes_by_itself(tmp_path: Path):
    """A second extraction gives the same bytes; no dates, no line numbers, no paths of one machine."""
    for path in CATALOGUES:
        again = tmp_path / path.parents[1].name / "LC_MESSAGES" / "django.po"
        again.parent.mkdir(parents=True)
        extract_messages.updated(path, extract_messages.strings()).save(str(again))
        assert again.read_bytes() == path.read_bytes()


def test_strings_of_templates_are_found(tmp_path: Path, monkeypatch):
    page = tmp_path / "templates" / "page.html"
    page.parent.mkdir()
    page.write_text(
        """<p title="{% translate 'Its' %}">{% translate "Say “no”, 100%" %}{% include "x.html" with title=_("Given") %}
        {% translate "May" context "month" %}
        {% blocktranslate count n=days %}One day{% plural %}{{ n }} days{% endblocktranslate %}
        {% blocktranslate trimmed %}
            Two
            lines
        {% endblocktranslate %}"""
    )
    monkeypatch.setattr(extract_messages, "ROOT", tmp_path)
    found = extract_messages.strings()
    assert {key: plural for key, (plural, _files) in found.items()} == {
        (None, "Its"): "",
        (None, "Say “no”, 100%%"): "",
        (None, "Given"): "",
        ("month", "May"): "",
        (None, "One day"): "%(n)s days",
        (None, "Two lines"): "",
    }


# -- before Django -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh-hans"),
        ({"LANG": "zh_TW.UTF-8"}, "zh-hans"),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, "zh-hans"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({}, "en"),
    ],
)
def test_early_messages_follow_the_terminal(monkeypatch, variables, language):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    text = early_messages.translate("run ./start-llm-service.sh")
    assert text == ("请运行 ./start-llm-service.sh" if language == "zh-hans" else "run ./start-llm-service.sh")
