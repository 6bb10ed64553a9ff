"""A message's Markdown as HTML that a page may contain.

Whatever the model or a person wrote, the *final* HTML goes through :func:`sanitise` and nothing reaches a page around it.
Text in, text out: no request, no database, no file. Everything here is bounded in time by the length of the text; longer
texts than ``LONGEST_MARKDOWN`` are shown as they are.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import find_lexer_class_by_name
from pygments.token import STANDARD_TYPES, Comment, Generic, Keyword, Literal, Name, Operator
from pygments.util import ClassNotFound

LONGEST_MARKDOWN = 100_000  # characters; parsing is linear, and a hostile text of this length takes under two seconds
LONGEST_HIGHLIGHT = 30_000  # characters of one code block; some lexers are much slower than others

# -- what may be in a page: written out, so that a change is a decision -----------------------------------------------
ALLOWED_TAGS = {
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "blockquote", "pre", "div", "hr", "ul", "ol", "li"),
    *("table", "thead", "tbody", "tr", "th", "td"),
    *("a", "br", "code", "del", "em", "s", "span", "strong"),
}
ALLOWED_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "div": {"data-language"}}
# Markdown's column alignment, without the style attribute that a strict Content-Security-Policy refuses.
ALIGNMENTS = {"text-align:left": "left", "text-align:center": "center", "text-align:right": "right"}
ALLOWED_CLASSES = {
    "div": {"code", "table"},
    "pre": {"plain"},
    "td": set(ALIGNMENTS.values()),
    "th": set(ALIGNMENTS.values()),
    "span": {"code-language", *filter(None, STANDARD_TYPES.values())},
}
ALLOWED_SCHEMES = {"http", "https", "mailto"}
# Elements whose text is not something a person wrote to be read.
REMOVED_WITH_CONTENT = {"script", "style"}

# Kind of token: name, colour on a light and on a dark ground. Each has a contrast of at least 4.5 : 1 on #f6f8fa and #161b22.
PALETTE = {
    Keyword: ("keyword", ("#b3202c", "#ff7b72")),
    Name.Builtin: ("builtin", ("#8a4600", "#ffa657")),
    Name.Class: ("class", ("#8a4600", "#ffa657")),
    Name.Function: ("function", ("#6f3bc4", "#d2a8ff")),
    Name.Decorator: ("decorator", ("#6f3bc4", "#d2a8ff")),
    Name.Tag: ("tag", ("#116329", "#7ee787")),
    Name.Attribute: ("attribute", ("#0550ae", "#79c0ff")),
    Literal.Number: ("number", ("#0550ae", "#79c0ff")),
    Literal.String: ("string", ("#0a3069", "#a5d6ff")),
    Comment: ("comment", ("#57606a", "#9198a1")),
    Operator: ("operator", ("#0550ae", "#79c0ff")),
    Generic.Deleted: ("deleted", ("#82071e", "#ffdcd7")),
    Generic.Inserted: ("inserted", ("#116329", "#aff5b4")),
    Generic.Heading: ("heading", ("#0550ae", "#79c0ff")),
}

LANGUAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+#._-]{0,29}")


def render(text: str) -> str:
    """The text as sanitised HTML."""
    if len(text) > LONGEST_MARKDOWN:
        return render_plain(text)
    return sanitise(_parser().render(text))


def render_plain(text: str) -> str:
    """The text as it is, line by line: what a person wrote is a question, not a document."""
    return sanitise(f'<pre class="plain">{html.escape(text)}</pre>')


def sanitise(unsafe: str) -> str:
    """The one place that decides which HTML a message may put into a page."""
    return nh3.clean(
        unsafe,
        tags=ALLOWED_TAGS,
        clean_content_tags=REMOVED_WITH_CONTENT,
        attributes=ALLOWED_ATTRIBUTES,
        allowed_classes=ALLOWED_CLASSES,
        url_schemes=ALLOWED_SCHEMES,
        url_relative="deny",  # a model's answer has no business pointing into this service
        link_rel="noopener nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def pygments_css() -> str:
    """The stylesheet of highlighted code, light and dark: by the system's preference unless ``data-theme`` says otherwise."""
    light = _colours(light=True)
    dark = _colours(light=False)
    return "\n".join(
        [
            f":root {{ {light} }}",
            f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {dark} }} }}",
            f":root[data-theme=dark] {{ {dark} }}",
            *_token_rules(),
            "",
        ]
    )


def _colours(*, light: bool) -> str:
    """A colour per kind of token, as custom properties: a theme changes these and nothing else."""
    return " ".join(f"--code-{name}: {by_theme[0 if light else 1]};" for name, by_theme in PALETTE.values())


def _token_rules() -> list[str]:
    kinds: dict[str, list[str]] = {}
    for token, css_class in STANDARD_TYPES.items():
        kind = next((ancestor for ancestor in reversed(token.split()) if ancestor in PALETTE), None)
        if css_class and kind is not None:
            kinds.setdefault(PALETTE[kind][0], []).append(f".code .{css_class}")
    return [f"{', '.join(selectors)} {{ color: var(--code-{name}); }}" for name, selectors in kinds.items()]


# -- from Markdown to HTML ---------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough; HTML in the text is shown, not interpreted. Holds no state between calls."""
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
    # mypy takes the method for fixed; it is the documented way to say which links there are.
    parser.validateLink = _is_allowed_link  # type: ignore[assignment]
    parser.add_render_rule("fence", _code_block)
    parser.add_render_rule("code_block", _code_block)
    parser.add_render_rule("image", _image_as_link)
    parser.add_render_rule("table_open", _constant('<div class="table"><table>'))
    parser.add_render_rule("table_close", _constant("</table></div>"))
    parser.add_render_rule("th_open", _cell)
    parser.add_render_rule("td_open", _cell)
    return parser


def _is_allowed_link(address: str) -> bool:
    """Other links stay the text they were; :func:`sanitise` would leave a link that leads nowhere."""
    return address.strip().lower().startswith(("http://", "https://", "mailto:"))


def _constant(markup: str) -> Any:
    def rule(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        return markup

    return rule


def _cell(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    alignment = ALIGNMENTS.get(str(tokens[index].attrGet("style") or ""))
    return f'<{tokens[index].tag} class="{alignment}">' if alignment else f"<{tokens[index].tag}>"


def _image_as_link(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """A picture from elsewhere would tell that place who reads what, so a page shows where it is instead."""
    token = tokens[index]
    address = str(token.attrGet("src") or "")
    label = renderer.renderInlineAsText(token.children or [], options, env) or address
    return f'<a href="{html.escape(address)}">{html.escape(label)}</a>'


def _code_block(renderer: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    found = LANGUAGE_NAME.match(token.info.strip())
    language = found.group() if found else ""
    label = f'<span class="code-language">{html.escape(language)}</span>' if language else ""
    code = _highlighted(token.content, language)
    return f'<div class="code" data-language="{html.escape(language)}">{label}<pre><code>{code}</code></pre></div>\n'


def _highlighted(code: str, language: str) -> str:
    lexer = _lexer_class(language.lower()) if language and len(code) <= LONGEST_HIGHLIGHT else None
    if lexer is None:
        return html.escape(code)
    return highlight(code, lexer(stripnl=False, ensurenl=False), HtmlFormatter(nowrap=True))


@lru_cache(maxsize=256)
def _lexer_class(language: str) -> type[Lexer] | None:
    """Kept, misses above all: looking for an unknown name reads every installed package's entry points."""
    try:
        return find_lexer_class_by_name(language)
    except ClassNotFound:
        return None
