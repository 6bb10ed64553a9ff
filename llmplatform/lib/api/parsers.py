"""JSON bodies, with limits and without surprises.

What gets through is plain: at most 10 MB and 64 levels deep, no key twice, no NaN or infinity, no text that a database or a
UTF-8 encoder would refuse. Whatever else arrives is a ParseError or a 413, never a traceback from deeper down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.utils.translation import gettext as _
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from llmplatform.lib.api.errors import ApiError
from llmplatform.lib.json_bounds import DEEPEST, is_too_complex


class StrictJSONParser(BaseParser):
    """Takes JSON whatever the declared type is (curl's default is a form). A view may take less than all of them with
    ``longest_body`` (bytes)."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        view = (parser_context or {}).get("view")
        return parse_json(_read(stream, getattr(view, "longest_body", settings.DATA_UPLOAD_MAX_MEMORY_SIZE)))


def parse_json(raw: bytes) -> Any:
    """Raises ParseError."""
    if is_too_complex(raw):
        raise ParseError(_("it is nested too deeply or has too many parts"))
    try:
        data = json.loads(
            raw.decode("utf-8-sig"), object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError as error:
        raise ParseError(_("it is nested too deeply")) from error
    except UnicodeDecodeError as error:
        raise ParseError(_("it is not UTF-8 text")) from error
    except ValueError as error:
        raise ParseError(str(error)) from error
    _check_contents(data)
    return data


def _read(stream: Any, limit: int) -> bytes:
    try:
        raw: bytes = stream.read(limit + 1)
    except RequestDataTooBig:
        raw = b" " * (limit + 1)
    if len(raw) > limit:
        raise ApiError("request_too_large", _too_large(limit), 413)
    return raw


def _too_large(limit: int) -> str:
    if limit < 2**20:
        return _("The body is larger than %(limit)d KB.") % {"limit": limit // 2**10}
    return _("The body is larger than %(limit)d MB.") % {"limit": limit // 2**20}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _value in pairs]
        raise ValueError(
            _("the key “%(key)s” is there twice") % {"key": next(key for key in keys if keys.count(key) > 1)}
        )
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(_("%(name)s is not JSON") % {"name": name})


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(_("the number %(number)s is too large") % {"number": text})
    return value


def _check_contents(data: Any) -> None:
    """Depth and texts, without recursion."""
    level: list[Any] = [data]
    for _depth in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            elif isinstance(value, str):
                _check_text(value)
        if not below:
            return
        level = below
    raise ParseError(_("it is nested too deeply"))


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise ParseError(_("a text holds a NUL character"))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ParseError(_("a text holds half of a surrogate pair")) from error
