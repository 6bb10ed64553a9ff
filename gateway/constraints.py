"""Grammars and JSON schemas, which an engine turns into rules before it answers: bounds on what that may take. Pure.

It does so in the thread that computes for all of its slots, and too deep a grammar ends its process. A short one that can be read
in very many ways still keeps it busy for long: no bound on sizes finds those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from gateway import errors

GRAMMAR = "grammar"
SCHEMA = "json_schema"
SCHEMA_FIELDS = (SCHEMA, "response_format", "text", "output_format", "output_config")
TOOLS = "tools"  # their schemas stand in the prompt too, so that the context bounds how much they list
MOST_GRAMMAR_BYTES = 32 * 1024
MOST_REPETITIONS = 10_000  # {n,m} in a grammar or a pattern, minItems and maxItems: added up
MOST_LENGTHS = 400_000  # minLength and maxLength, added up; more than LENGTH_CLIP of one costs no more
LENGTH_CLIP = 2_000
MOST_CHOICES = 500  # properties and alternatives
MOST_PATTERN = 16 * 1024
CHOICES = ("properties", "enum", "anyOf", "oneOf")
COUNTS, LENGTHS = ("minItems", "maxItems"), ("minLength", "maxLength")
REPEATING = frozenset({*COUNTS, *LENGTHS, "pattern"})
# What may stand in braces, told from braces in texts, classes and comments. Each begins differently, and nothing is tried twice:
# one of these runs over megabytes of anything in no time.
IN_GRAMMAR = re.compile(r'"(?:[^"\\]|\\.)*+"?|\[(?:[^\]\\]|\\.)*+\]?|#[^\r\n]*+|\{((?:#[^\r\n]*+|[^}#])*+)', re.DOTALL)
IN_PATTERN = re.compile(r"\\.|\[(?:[^\]\\]|\\.)*+\]?|\{([^}]*+)", re.DOTALL)
COMMENT, DIGITS = re.compile(r"#[^\r\n]*+"), re.compile(r"\d++")
LONGEST_NUMBER = 9  # digits; more are a very large number
LONGEST_PLACE, LONGEST_KEY = 300, 40  # characters of where something is wrong
TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})
KEYWORDS: dict[str, type] = {
    **dict.fromkeys(("properties", "$defs", "definitions"), dict),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems", "enum", "required"), list),
    **dict.fromkeys(("$ref", "pattern"), str),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), int),
}


def check(body: Mapping[str, Any]) -> None:
    """Raises GatewayError naming the field that cannot be taken."""
    if (grammar := body.get(GRAMMAR)) is not None:
        _check_grammar(grammar)
    for name in SCHEMA_FIELDS:
        if isinstance(body.get(name), dict):
            _check_size(name, _size(body[name], REPEATING.union(CHOICES)), MOST_CHOICES)
    if isinstance(body.get(TOOLS), list):
        _check_size(TOOLS, _size(body[TOOLS], REPEATING), None)
    if (schema := body.get(SCHEMA)) is not None and (place := _not_a_schema(schema)) is not None:
        template = _("“%(name)s” is not a JSON schema: see %(place)s.")
        raise errors.invalid(template, SCHEMA, name=SCHEMA, place=place)


def _check_grammar(grammar: Any) -> None:
    if not isinstance(grammar, str):
        raise errors.invalid(_("“%(name)s” must be a text."), GRAMMAR, name=GRAMMAR)
    if len(grammar.encode("utf-8", "surrogatepass")) > MOST_GRAMMAR_BYTES:
        template = _("“%(name)s” is longer than %(most)d bytes.")
        raise errors.invalid(template, GRAMMAR, name=GRAMMAR, most=MOST_GRAMMAR_BYTES)
    if _repetitions(grammar, IN_GRAMMAR) > MOST_REPETITIONS:
        raise _too_many_repetitions(GRAMMAR)


def _repetitions(text: str, tokens: re.Pattern[str]) -> int:
    """The largest number in each pair of braces, whatever else stands there: engines pass over blanks, comments, leading zeros
    and some letters."""
    braces = (COMMENT.sub("", found) for found in tokens.findall(text) if found)
    return sum(max(map(_number, DIGITS.findall(inner)), default=0) for inner in braces)


def _number(digits: str) -> int:
    return int(digits.lstrip("0")[:LONGEST_NUMBER] or 0)


def _too_many_repetitions(name: str) -> errors.GatewayError:
    return errors.invalid(_("“%(name)s” asks for too many repetitions."), name, name=name)


@dataclass(slots=True)
class _Size:
    choices: int = 0
    repetitions: int = 0
    lengths: int = 0
    patterns: int = 0


def _size(schema: Any, keywords: frozenset[str]) -> _Size:
    found = _Size()
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += [one for one in part if isinstance(one, dict | list)]
        elif isinstance(part, dict):
            pending += [one for one in part.values() if isinstance(one, dict | list)]
            if not keywords.isdisjoint(part):
                _add(found, part)
    return found


def _add(found: _Size, part: dict[str, Any]) -> None:
    """A property may be called as a keyword is: only what has its type counts."""
    found.choices += sum(len(part[name]) for name in CHOICES if isinstance(part.get(name), dict | list))
    found.repetitions += _sum(part, COUNTS, MOST_REPETITIONS + 1)
    found.lengths += _sum(part, LENGTHS, LENGTH_CLIP)
    if isinstance(pattern := part.get("pattern"), str):
        found.patterns += len(pattern)
        if found.patterns <= MOST_PATTERN:
            found.repetitions += _repetitions(pattern, IN_PATTERN)


def _sum(part: dict[str, Any], names: tuple[str, ...], clip: int) -> int:
    return sum(min(value, clip) for name in names if isinstance(value := part.get(name), int) and value > 0)


def _check_size(name: str, size: _Size, most_choices: int | None) -> None:
    if most_choices is not None and size.choices > most_choices:
        template = _("“%(name)s” has more than %(most)d properties and alternatives.")
        raise errors.invalid(template, name, name=name, most=most_choices)
    if size.patterns > MOST_PATTERN:
        template = _("The patterns in “%(name)s” are longer than %(most)d characters.")
        raise errors.invalid(template, name, name=name, most=MOST_PATTERN)
    if size.repetitions > MOST_REPETITIONS or size.lengths > MOST_LENGTHS:
        raise _too_many_repetitions(name)


# -- what an engine would silently leave out -------------------------------------------------------------------------
# The place around it, and what it is called there; a text for each would take too much.
Place = tuple[Any, str | int] | None


def _not_a_schema(schema: Any) -> str | None:
    """Where it is none, as a JSON pointer. The engine then answers as if no schema had been given, and says nothing."""
    pending: list[tuple[Place, Any]] = [(None, schema)]
    while pending:
        place, part = pending.pop()
        if isinstance(part, bool) and place is not None:
            continue
        if not isinstance(part, dict):
            return _pointer(place)
        if (wrong := _wrong_keyword(part)) is not None:
            return _pointer((place, wrong))
        for name in ("properties", "$defs", "definitions"):
            pending += [(((place, name), key), value) for key, value in part.get(name, {}).items()]
        for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
            pending += [(((place, name), number), value) for number, value in enumerate(part.get(name, []))]
        if isinstance(items := part.get("items"), list):
            pending += [(((place, "items"), number), value) for number, value in enumerate(items)]
        elif items is not None:
            pending.append(((place, "items"), items))
    return None


def _pointer(place: Place) -> str:
    parts: list[str] = []
    while place is not None:
        place, part = place
        parts.append(str(part)[:LONGEST_KEY])
    return "/".join(["#", *reversed(parts)])[:LONGEST_PLACE]


def _wrong_keyword(schema: dict[str, Any]) -> str | None:
    for name, kind in KEYWORDS.items():
        if name in schema and not isinstance(schema[name], kind):
            return name
    kinds = schema.get("type", [])
    named = kinds if isinstance(kinds, list) else [kinds]
    return None if all(isinstance(kind, str) and kind in TYPES for kind in named) else "type"
