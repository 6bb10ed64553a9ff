"""Finds English left over on a page in Chinese: in its texts, and in the attributes people read or hear."""

from __future__ import annotations

import re
from html.parser import HTMLParser

# Names, terms and units that are written the same in Chinese.
SAME = (
    "llm platform gguf gpu api ai openai token tokens top id json curl llama-server javascript"
    " csv utf gb18030 kb mb gb tb ms ctrl esc english utc zh-hans en kv qwen mib lora jinja flash attention numa"
)
SAME_WORDS = frozenset(SAME.split())
READ_ATTRIBUTES = {"title", "aria-label", "placeholder", "alt", "data-label", "data-lost", "data-copied"}
NOT_READ = {"script", "style", "code", "pre", "template", "textarea"}  # a text area holds what a person wrote
WORD = re.compile(r"[A-Za-z][A-Za-z'’-]+")
# Examples in JSON, service accounts, paths, addresses, ids, versions and file names; names of the API in Chinese quotation marks;
# what is shown of a key.
VALUES = re.compile(r"\[\{.*?\}\]|group:[\w-]+|[\w./:@-]*[/@_\d.][\w./:@-]*|“[a-z_]+”|(?:sk-[\w-]+)?…[\w-]+")


class Texts(HTMLParser):
    """What a person reads on a page, icon names left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [text for name, text in attrs if name in READ_ATTRIBUTES and text]
        is_icon = "material-symbols-outlined" in (values.get("class") or "")
        if self._hidden or tag in NOT_READ or is_icon:
            self._hidden.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)


def english_text(text: str, allowed: frozenset[str] = frozenset()) -> bool:
    words = WORD.findall(VALUES.sub(" ", text))
    return any(word.lower() not in SAME_WORDS | allowed for word in words)


def english(html: str, allowed: frozenset[str] = frozenset()) -> set[str]:
    """The texts of the page with words that are neither Chinese nor ``allowed`` (lower case)."""
    reader = Texts()
    reader.feed(html)
    return {" ".join(text.split()) for text in reader.found if english_text(text, allowed)}
