from __future__ import annotations

import re
import time

import pytest

from chat import markdown


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](java\nscript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "[x](vbscript:x)",
        "[x](&#106;avascript:alert(1))",
        "![x](javascript:alert(1))",
        "![x](data:image/svg+xml,<svg onload=alert(1)>)",
        "<svg onload=alert(1)><script>alert(1)</script></svg>",
        "<javascript:alert(1)>",
        "<a href='javascript:alert(1)'>x</a>",
        "<iframe src=//evil.example></iframe>",
        '[x](https://a.example "t\\" onmouseover=alert(1)")',
        '```"><img src=x onerror=alert(1)>\ncode\n```',
        "```html\n<script>alert(1)</script>\n```",
        "````\n```\n<script>alert(1)</script>\n```\n````",
        "| <script>alert(1)</script> |\n|---|\n| <img onerror=x> |",
        "[a]: javascript:alert(1)\n\n[a]",
        "[x](/admin/users/1/delete)",
        "[x](//evil.example)",
        "![tracker](https://evil.example/pixel.png)",
        "<style>body{display:none}</style>",
        "\x00<script\x00>alert(1)</script>",
    ],
)
def test_nothing_hostile_gets_into_the_html(hostile):
    for text in (hostile, f"> - {hostile}", hostile * 50):
        html = markdown.render(text)
        tags = re.findall(r"<[a-zA-Z][^>]*>", html)
        for tag in tags:
            name = re.match(r"<([a-zA-Z0-9]+)", tag).group(1)
            assert name in markdown.ALLOWED_TAGS
            assert not re.search(r"\son\w+\s*=|style\s*=|src\s*=", re.sub(r'"[^"]*"', '""', tag))
            for address in re.findall(r'href="([^"]*)"', tag):
                assert address.startswith(("http://", "https://", "mailto:"))
                assert 'rel="noopener nofollow"' in tag


def test_the_sanitiser_does_not_rely_on_the_parser():
    dirty = (
        '<p onclick="x()" style="color:red" class="fixed">a<script>b</script><svg><script>c</script></svg>'
        '<a href="javascript:x">d</a><img src="https://e.example/f"><span class="k evil">g</span></p><form><input></form>'
    )
    assert markdown.sanitise(dirty) == (
        '<p>a<a target="_blank" rel="noopener nofollow">d</a><span class="k">g</span></p>'
    )


@pytest.mark.parametrize("piece", ["[", "![", "[a](", "[[a]", "*", "  - a\n"])
def test_hostile_lengths_take_bounded_time(piece):
    for length in (markdown.LONGEST_MARKDOWN, 1_000_000):
        started = time.thread_time()
        html = markdown.render(piece * (length // len(piece)))
        assert time.thread_time() - started < 10
        assert html


def test_code_is_highlighted_and_says_its_language():
    html = markdown.render("```python\ndef f():\n    return '<b>'\n```")
    assert html.startswith(
        '<div class="code" data-language="python"><span class="code-language">python</span><pre><code>'
    )
    assert '<span class="k">def</span>' in html
    assert "&lt;b&gt;" in html


def test_code_of_an_unknown_language_is_shown_as_it_is():
    assert markdown.render("```no-such\na < b\n```") == (
        '<div class="code" data-language="no-such"><span class="code-language">no-such</span>'
        "<pre><code>a &lt; b\n</code></pre></div>\n"
    )


@pytest.mark.parametrize("text", ["```python\nprint(1", "```python\nprint(1\n``", "- a\n  ```python\n  print(1"])
def test_a_fence_that_is_not_closed_yet_is_code_already(text):
    html = markdown.render(text)
    assert '<div class="code" data-language="python">' in html
    assert html.count("<pre>") == html.count("</pre>") == 1


def test_tables_scroll_by_themselves_and_align_without_style():
    html = markdown.render("|a|b|\n|:-:|--:|\n|1|~~2~~|")
    assert html.startswith('<div class="table"><table>')
    assert '<td class="center">1</td>' in html
    assert '<td class="right"><s>2</s></td>' in html


def test_a_picture_is_shown_as_a_link():
    assert markdown.render("![a *cat*](https://pictures.example/cat.png)") == (
        '<p><a href="https://pictures.example/cat.png" target="_blank" rel="noopener nofollow">a cat</a></p>\n'
    )


def test_plain_text_stays_as_it_is():
    assert markdown.render_plain("<b>\n  *x*") == '<pre class="plain">&lt;b&gt;\n  *x*</pre>'


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_highlighting_can_be_read_in_light_and_dark():
    for _name, (on_light, on_dark) in markdown.PALETTE.values():
        for colour, ground in ((on_light, "#f6f8fa"), (on_dark, "#161b22")):
            dark, light = sorted((_luminance(colour), _luminance(ground)))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, colour
    css = markdown.pygments_css()
    assert "prefers-color-scheme: dark" in css
    assert ":root[data-theme=dark]" in css
    assert css.count("{") == css.count("}")
