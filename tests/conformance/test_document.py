"""docs/conformance.md says of every field what the code does with it."""

from __future__ import annotations

import re

import pytest

from gateway import constraints, fields
from gateway.endpoints import ENDPOINTS
from tests.conformance import refusals, rows
from tests.running_service import PROJECT

NAME = re.compile(r"`([a-z_][a-z_.]*)`")
PAGE = (PROJECT / "docs" / "conformance.md").read_text(encoding="utf-8")
# Whose bounds are not in the tables of gateway/fields.py.
OTHERWISE_BOUNDED = {
    *(name for endpoint in ENDPOINTS.values() for name in endpoint.limit_fields),
    *(constraints.GRAMMAR, *constraints.SCHEMA_FIELDS, constraints.TOOLS),
    *("prompt", "tokens", "messages", "input", "content"),
}


def table(title: str) -> dict[str, list[str]]:
    """Of a section: each field in the first column, with the other columns."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    cells = [re.split(r" ?\| ?", line)[1:-1] for line in section.splitlines() if line.startswith("| ")]
    return {name: others for first, *others in cells for name in NAME.findall(first)}


def passed_on() -> set[str]:
    section = PAGE.split("\n## Passed on\n")[1].split("\n## ")[0]
    return {name for line in section.splitlines() if line.startswith("| ") for name in NAME.findall(line)}


def test_what_is_refused() -> None:
    at_one = set().union(*fields.REFUSED_AT.values())
    assert set(table("Refused")) == fields.REFUSED | at_one


def test_what_is_bounded() -> None:
    assert set(table("Bounded")) == set(fields.NUMBERS) | set(fields.LENGTHS) | OTHERWISE_BOUNDED


@pytest.mark.parametrize("name", sorted(fields.NUMBERS))
def test_bounds_of_numbers(name: str) -> None:
    low, high = fields.NUMBERS[name]
    assert f"from {low} to {high:,}" in table("Bounded")[name][0]


@pytest.mark.parametrize("name", sorted(fields.LENGTHS))
def test_bounds_of_lists(name: str) -> None:
    assert f"{fields.LENGTHS[name]:,} entries" in table("Bounded")[name][0]


def test_bounds_of_grammars_and_schemas() -> None:
    bounded = table("Bounded")
    for figure in (constraints.MOST_GRAMMAR_BYTES, constraints.MOST_REPETITIONS):
        assert f"{figure:,}" in bounded[constraints.GRAMMAR][0]
    for figure in (
        constraints.MOST_CHOICES,
        constraints.MOST_REPETITIONS,
        constraints.MOST_LENGTHS,
        constraints.MOST_PATTERN,
    ):
        assert f"{figure:,}" in bounded[constraints.SCHEMA][0]


def test_a_field_has_one_fate() -> None:
    refused, bounded = set(table("Refused")), set(table("Bounded"))
    assert not refused & bounded
    assert not refused & passed_on()
    assert not bounded & passed_on()


def test_every_endpoint_stands_there() -> None:
    section = PAGE.split("\n## Endpoints\n")[1].split("\n## ")[0]
    for endpoint in ENDPOINTS.values():
        assert f"| `{endpoint.path}` | passed on" in section
    for _method, path in refusals.NOT_OFFERED:
        assert re.sub(r"\?.*|/0", "", path.removeprefix("/v1")) in section


def test_what_is_compared_stands_there() -> None:
    """Each field of the requests that are compared; and no other is said to be passed on."""
    asked = {name for row in rows.ANSWERED for name in row.body} - {"no_such_field"}
    assert asked <= passed_on() | set(table("Bounded"))
    refused_by_the_engine = {name for row, _param in refusals.refused() for name in row.body}
    assert passed_on() <= asked | refused_by_the_engine
