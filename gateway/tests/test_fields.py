"""Fields that are refused or bounded, and that all the others are let through."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from gateway import bodies, constraints, fields
from gateway.endpoints import ENDPOINTS
from gateway.errors import GatewayError

CHAT, COMPLETIONS, INFILL = ENDPOINTS["chat.completions"], ENDPOINTS["completions"], ENDPOINTS["infill"]
START = {"model": "m", "prompt": "hello"}
MANY = 10**6


def refused(body: dict[str, Any], endpoint=COMPLETIONS) -> str | None:
    """The field that is named; fails when the body is taken."""
    with pytest.raises(GatewayError) as caught:
        bodies.check(endpoint, body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_request")
    assert caught.value.message
    return caught.value.param


@pytest.mark.parametrize("name", sorted(fields.REFUSED))
@pytest.mark.parametrize("value", [None, 0, [], "x"])
def test_some_fields_are_refused_whatever_they_say(name: str, value: Any) -> None:
    assert refused({**START, name: value}) == name


@pytest.mark.parametrize("name", sorted(fields.NOT_ARGUMENTS))
def test_a_template_is_not_told_another_conversation(name: str) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    bodies.check(CHAT, {**chat, "chat_template_kwargs": {"enable_thinking": False}})
    bodies.check(CHAT, {**chat, "chat_template_kwargs": 5})
    asked = {**chat, "chat_template_kwargs": {name: [{"role": "user", "content": "other"}]}}
    assert refused(asked, CHAT) == f"chat_template_kwargs.{name}"


def test_some_are_refused_at_one_endpoint() -> None:
    rerank = {"model": "m", "query": "q", "documents": ["d"], "texts": ["d"]}
    assert refused(rerank, ENDPOINTS["rerank"]) == "texts"
    bodies.check(COMPLETIONS, {**START, "texts": ["d"]})


@pytest.mark.parametrize("name", sorted(fields.NUMBERS))
def test_numbers_have_a_lowest_and_a_highest_value(name: str) -> None:
    low, high = fields.NUMBERS[name]
    for value in (low, high, None):
        bodies.check(COMPLETIONS, {**START, name: value})
    for value in (low - 1, high + 1, 1.5, "1", [1]):
        assert refused({**START, name: value}) == name


def test_logprobs_of_a_chat_are_true_or_false() -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    bodies.check(CHAT, {**chat, "logprobs": True, "top_logprobs": 5})
    assert refused({**chat, "logprobs": True, "top_logprobs": True}, CHAT) == "top_logprobs"


@pytest.mark.parametrize("name", sorted(fields.LENGTHS))
def test_lists_have_a_longest(name: str) -> None:
    most = fields.LENGTHS[name]
    entries: list[Any] = [[number, 1] if name == "logit_bias" else f"entry {number}" for number in range(most + 1)]
    bodies.check(COMPLETIONS, {**START, name: entries[:most]})
    assert refused({**START, name: entries}) == name


def test_what_is_no_list_is_one_entry_or_counted_by_its_letters() -> None:
    bodies.check(COMPLETIONS, {**START, "stop": "x" * 1000})
    bodies.check(COMPLETIONS, {**START, "samplers": "edskypmxtedskypm"[:16]})
    for samplers in ("edskypmxtedskypmx", "kkk", ["dry", "top_k", "dry", "dry"]):
        assert refused({**START, "samplers": samplers}) == "samplers"
    assert refused({**START, "logit_bias": {str(number): 1 for number in range(10_001)}}) == "logit_bias"


@pytest.mark.parametrize("bias", [[["word " * 3000, 1]], {"word " * 3000: 1}])
def test_words_that_are_made_likely_may_not_be_long(bias: Any) -> None:
    assert refused({**START, "logit_bias": bias}) == "logit_bias"
    bodies.check(COMPLETIONS, {**START, "logit_bias": [["word", 1], [5, 1], 7, []]})


def test_numbers_that_are_none_are_named() -> None:
    assert refused({**START, "temperature": float("nan")}) == "temperature"
    assert refused({**START, "top_p": float("inf")}) == "top_p"


# -- grammars and schemas ------------------------------------------------------------------------------------------------
def array(**more: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, **more}


def properties(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(count)}}


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000,
        'root ::= "a"{10001}',
        'root ::= "a"{0,2000} "b"{0,9000}',
        'root ::= "a"{' + "9" * 5000 + "}",
        'root ::= "a"{0,' + "0" * 20 + "10001}",
        'root ::= ("a"{10001# a comment }\n})',
        'root ::= [^"{]{ 10001 , }',
        'root ::= "\\"" "a"{10001}',
        5,
        ["root"],
    ],
)
def test_grammars_an_engine_would_choke_on(grammar: Any) -> None:
    assert refused({**START, "grammar": grammar}) == "grammar"


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "yes" | "no"',
        'root ::= "a"{1,1000} [0-9]{3}',
        'root ::= "{\\"year\\": 99999}" [{99999}] # {99999}',
        "",
        None,
    ],
)
def test_ordinary_grammars(grammar: Any) -> None:
    bodies.check(COMPLETIONS, {**START, "grammar": grammar})


HUGE = [
    array(minItems=MANY),
    array(maxItems=MANY),
    {"type": "object", "properties": {f"p{number}": array(maxItems=2000) for number in range(6)}},
    {"type": "string", "pattern": "^a{1000000}$"},
    {"type": "string", "pattern": "^[{]a{10001x}$"},
    {"type": "string", "pattern": "^a{0,000000000010001}$"},
    {"type": "string", "pattern": "a" * 20_000},
    {"type": "object", "properties": {f"p{n}": {"type": "string", "maxLength": 9000} for n in range(201)}},
]


@pytest.mark.parametrize("begins", ["{", '"', "[", "#", "{#", "{0", "\\", "{,"])
@pytest.mark.parametrize("goes_on", [" ", "\\", "0", ",", "{", '"', "[", "#"])
def test_what_does_not_end_is_read_once(begins: str, goes_on: str) -> None:
    """Not once for each way to read it: this would take longer than the test may."""
    bodies.check(COMPLETIONS, {**START, "grammar": begins + goes_on * 30_000 + "x"})
    constraints.check({"response_format": {"pattern": begins + goes_on * 15_000 + "x"}})


@pytest.mark.parametrize("schema", HUGE)
def test_schemas_an_engine_would_choke_on_wherever_they_stand(schema: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert refused({**START, "json_schema": schema}) == "json_schema"
    for field, value in {
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        "text": {"format": {"type": "json_schema", "schema": schema}},
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
        "tools": [tool],
    }.items():
        assert refused({**chat, field: value}, CHAT) == field


@pytest.mark.parametrize("schema", [properties(501), {"enum": list(range(501))}, {"anyOf": [{}] * 501}])
def test_a_schema_may_not_list_very_much_but_tools_may(schema: dict[str, Any]) -> None:
    assert refused({**START, "json_schema": schema}) == "json_schema"
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    bodies.check(CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [tool]})


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (5, "#"),
        (True, "#"),
        ([], "#"),
        ({"type": "nope"}, "#/type"),
        ({"type": ["string", "nope"]}, "#/type"),
        ({"type": "object", "properties": []}, "#/properties"),
        ({"type": "object", "properties": {"a": {"type": 5}}}, "#/properties/a/type"),
        ({"type": "object", "properties": {"a": 5}}, "#/properties/a"),
        ({"type": "array", "items": {"type": "nope"}}, "#/items/type"),
        ({"type": "array", "items": [{}, {"enum": 5}]}, "#/items/1/enum"),
        ({"anyOf": [{}, {"$ref": 5}]}, "#/anyOf/1/$ref"),
        ({"$defs": {"a": {"required": "b"}}}, "#/$defs/a/required"),
        ({"type": "string", "maxLength": "5"}, "#/maxLength"),
    ],
)
def test_what_is_no_schema_is_said_with_its_place(schema: Any, place: str) -> None:
    """The engine would answer as if there were none."""
    with pytest.raises(GatewayError) as caught:
        constraints.check({"json_schema": schema})
    assert caught.value.param == "json_schema"
    assert place in caught.value.message


def test_the_place_of_what_is_wrong_is_told_briefly_and_takes_no_memory() -> None:
    """One text for each place would take a gigabyte here."""
    key = "k" * 100_000
    schema = {"$defs": {key: {"$defs": {str(number): {} for number in range(10_000)} | {"last": {"type": "nope"}}}}}
    tracemalloc.start()
    with pytest.raises(GatewayError) as caught:
        constraints.check({"json_schema": schema})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    assert "$defs/last/type" in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    "schema",
    [
        {},
        properties(500),
        array(minItems=2, maxItems=100, prefixItems=[{"const": 1}]),
        {"type": ["string", "null"], "pattern": "^[a-z]{2,5}$", "maxLength": 100_000},
        {"type": "object", "properties": {"enum": {"type": "string"}, "maxItems": {}}, "additionalProperties": False},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}},
        {"type": "array", "items": True},
    ],
)
def test_ordinary_schemas(schema: dict[str, Any]) -> None:
    bodies.check(COMPLETIONS, {**START, "json_schema": schema})
    constraints.check(
        {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}, "tools": [schema]}
    )


# -- infill --------------------------------------------------------------------------------------------------------------
def infill(**more: Any) -> dict[str, Any]:
    return {"model": "m", "input_prefix": "a", "input_suffix": "b", **more}


@pytest.mark.parametrize("name", ["input_prefix", "input_suffix"])
@pytest.mark.parametrize("value", [None, 5, ["a"]])
def test_both_sides_of_a_hole_are_texts(name: str, value: Any) -> None:
    assert refused(infill(**{name: value}), INFILL) == name
    without = infill()
    del without[name]
    assert refused(without, INFILL) == name


def test_what_comes_before_the_answer_is_a_text_too() -> None:
    bodies.check(INFILL, infill(prompt=None))
    assert refused(infill(prompt=["x"]), INFILL) == "prompt"


def test_the_bound_of_what_is_read_has_all_files_in_it() -> None:
    files = [{"filename": "a.py", "text": "x" * 1000} for _number in range(20)]
    assert bodies.check(INFILL, infill(input_extra=files)).prompt_bound > 20 * (1000 + bodies.TOKENS_PER_MESSAGE)


def test_an_answer_always_tells_its_end_and_its_figures() -> None:
    body = infill(response_fields=["content", "timings"])
    changed = bodies.with_figures(INFILL, body)
    assert changed["response_fields"] == ["content", "timings", "stop"]
    assert bodies.with_figures(INFILL, changed) is changed
    for untouched in (infill(), infill(response_fields=[]), infill(response_fields=None)):
        assert bodies.with_figures(INFILL, untouched) is untouched
    chat = {"response_fields": ["content"]}
    assert bodies.with_figures(CHAT, chat) is chat, "where it chooses nothing"
    with pytest.raises(GatewayError):
        bodies.with_figures(INFILL, infill(response_fields=[5]))
