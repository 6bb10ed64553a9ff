"""Badges: a colour and always the word, for whoever cannot tell the colours apart."""

from __future__ import annotations

from typing import Any, Literal

from django.utils.html import format_html
from django.utils.safestring import SafeString

Kind = Literal["good", "busy", "bad", "warn", "off"]


def badge(text: Any, kind: Kind) -> SafeString:
    return format_html('<span class="c-badge c-{}">{}</span>', kind, text)


def live(key: str, content: Any) -> SafeString:
    """A part of the page that live.js keeps up to date from the page's live source."""
    return format_html('<span data-live="{}">{}</span>', key, content)
