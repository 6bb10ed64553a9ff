"""Streamed chat answers whose replica is lost in the middle: another one goes on, or the same one when it is back."""

from __future__ import annotations

import json
import secrets
import threading
from typing import Any

import pytest

from gateway.bodies import Plan
from gateway.endpoints import ENDPOINTS
from gateway.resumption import KEPT_BYTES, Delivered, Joint, continuation, ending, is_continued, is_possible
from gateway.tests.conftest import Service, StandIn, until

CHAT = ENDPOINTS["chat.completions"]
MESSAGES = [{"role": "user", "content": "Count."}]
WHOLE = "".join(f"word{number} " for number in range(30))


def event(text: str | None = None, **fields: Any) -> bytes:
    delta = {"role": "assistant", "content": None} if text is None else {"content": text}
    told = {
        "choices": [{"finish_reason": None, "index": 0, "delta": delta}],
        "id": "chatcmpl-1",
        "created": 1,
        **fields,
    }
    return b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


def delivered(*texts: str, thoughts: str = "") -> Delivered:
    found = Delivered()
    found.add(event())
    if thoughts:
        told = {"choices": [{"delta": {"reasoning_content": thoughts}, "finish_reason": None, "index": 0}]}
        found.add(b"data: " + json.dumps(told).encode() + b"\n\n")
    for text in texts:
        found.add(event(text))
    found.read()
    return found


def objects(events: bytes) -> list[dict[str, Any]]:
    return [json.loads(one[6:]) for one in events.split(b"\n\n") if one.startswith(b"data: {")]


# -- which, and with what ------------------------------------------------------------------------------------------------
def possible(stream: bool = True, answers: int = 1, endpoint: str = "chat.completions", **fields: Any) -> bool:
    plan = Plan("m", stream, answers, None, 100)
    return is_possible(ENDPOINTS[endpoint], {"messages": MESSAGES, "input": "x", "prompt": "x", **fields}, plan)


def test_which_answers_can_go_on_elsewhere() -> None:
    assert possible()
    assert possible(
        tools=[], response_format={"type": "json_object"}, temperature=1.5, stop=["x"], return_progress=True
    )
    assert possible(messages=[*MESSAGES, {"role": "assistant", "content": "One"}])


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False},
        {"answers": 2},
        {"endpoint": "completions"},
        {"endpoint": "responses"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"grammar": "root ::= [0-9]"},
        {"logprobs": True},
        {"n_probs": 3},
        {"add_generation_prompt": False},
        {"messages": [*MESSAGES, {"role": "assistant", "content": [{"type": "text", "text": "One"}]}]},
    ],
)
def test_which_cannot(fields: dict[str, Any]) -> None:
    assert not possible(**fields)


def test_what_the_next_replica_is_asked() -> None:
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 50, "n_predict": 90, "temperature": 0.5}
    asked = continuation(CHAT, body, delivered("One", ","), 40)
    assert asked["messages"] == [*MESSAGES, {"role": "assistant", "content": "One,"}]
    assert (asked["max_tokens"], asked["n_predict"], asked["temperature"]) == (40, 40, 0.5)
    assert body["messages"] == MESSAGES
    assert continuation(CHAT, {"messages": MESSAGES}, delivered(), 7) == {"messages": MESSAGES, "max_tokens": 7}
    begun = [*MESSAGES, {"role": "assistant", "content": "One, "}]
    assert continuation(CHAT, {"messages": begun}, delivered("two"), 7)["messages"][1:] == [
        {"role": "assistant", "content": "One, two"}
    ]
    thought = continuation(CHAT, {"messages": MESSAGES}, delivered("A", thoughts="hm"), 7)["messages"]
    assert thought[-1] == {"role": "assistant", "content": "A", "reasoning_content": "hm"}
    assert continuation(CHAT, {"messages": MESSAGES}, delivered("One, "), 7)["messages"][-1]["content"] == "One,"


def test_whether_the_next_replica_reads_what_was_written() -> None:
    assert is_continued("Q: hi\nA: ", "Q: hi\nA: One", delivered("One"))
    assert not is_continued("Q: hi\nA: ", "Q: hi\nA: <think></think>One", delivered("One"))
    assert is_continued("<think>", "<think>\nhm\n</think>\n\nOne", delivered("One", thoughts="hm"))
    assert not is_continued("<think>", "<think></think>One", delivered("One", thoughts="hm"))


# -- the text, and the joint -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [3, 2 * KEPT_BYTES // 100])
def test_the_text_that_was_delivered(count: int) -> None:
    found = Delivered()
    found.add(event() + event("零"))
    for number in range(1, count):
        found.add(b": a comment\n\n" + event(f" {number}"))
    found.read()
    assert found.text == "零" + "".join(f" {number}" for number in range(1, count))
    assert not found.calls_tools
    assert found.common == {"id": "chatcmpl-1", "created": 1}


def test_what_else_was_delivered() -> None:
    found = delivered("a", thoughts="hm")
    assert (found.text, found.thoughts, found.said_anything) == ("a", "hm", True)
    assert not delivered().said_anything
    call = {"choices": [{"delta": {"tool_calls": [{"index": 0}]}, "finish_reason": None, "index": 0}]}
    found.add(b"data: " + json.dumps(call).encode() + b"\n\n")
    found.read()
    assert found.calls_tools


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_the_joint_makes_one_answer_of_two(size: int) -> None:
    usage = {
        "prompt_tokens": 25,
        "completion_tokens": 2,
        "total_tokens": 27,
        "prompt_tokens_details": {"cached_tokens": 24},
    }
    timings = {"cache_n": 24, "prompt_n": 1, "predicted_n": 2, "predicted_per_second": 10.0}
    second = b":\n\n" + event(id="chatcmpl-2") + event("c", id="chatcmpl-2", created=2) + event("d", id="chatcmpl-2")
    second += event("", id="chatcmpl-2", usage=usage, timings=timings) + b"data: [DONE]\n\n"
    joint = Joint(delivered("a"), 20, 5)
    fitted = b"".join(joint.fit(second[at : at + size]) for at in range(0, len(second), size))
    assert fitted.startswith(b":\n\n")
    assert fitted.endswith(b"data: [DONE]\n\n")
    told = objects(fitted)
    assert [one["choices"][0]["delta"]["content"] for one in told] == ["c", "d", ""]
    assert {(one["id"], one["created"]) for one in told} == {("chatcmpl-1", 1)}
    assert told[-1]["usage"] == {
        "prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27, "prompt_tokens_details": {"cached_tokens": 20},
    }  # fmt: skip
    assert told[-1]["timings"] == {"cache_n": 20, "prompt_n": 0, "predicted_n": 7, "predicted_per_second": 10.0}


def test_the_first_event_is_kept_where_nothing_was_delivered() -> None:
    assert [one["choices"][0]["delta"] for one in objects(Joint(Delivered(), 20, 0).fit(event() + event("a")))] == [
        {"role": "assistant", "content": None},
        {"content": "a"},
    ]


@pytest.mark.parametrize("usage_asked", [True, False])
def test_a_completion_goes_on_with_a_chat(usage_asked: bool) -> None:
    def piece(text: str, **fields: Any) -> bytes:
        told = {"choices": [{"text": text, "index": 0, "finish_reason": None}], "object": "text_completion", **fields}
        return b"data: " + json.dumps(told).encode() + b"\n\n"

    usage = {"prompt_tokens": 25, "completion_tokens": 1, "total_tokens": 26}
    end = [{"text": "", "index": 0, "finish_reason": "stop"}]
    second = piece("b") + piece("", choices=end, usage=usage, timings={"predicted_n": 1}) + b"data: [DONE]\n\n"
    told = objects(Joint(delivered("a"), 20, 5, usage_asked=usage_asked).fit(second))
    assert {one["object"] for one in told} == {"chat.completion.chunk"}
    assert [choice for one in told for choice in one["choices"]] == [
        {"finish_reason": None, "index": 0, "delta": {"content": "b"}},
        {"finish_reason": "stop", "index": 0, "delta": {}},
    ]
    assert [one["usage"]["completion_tokens"] for one in told if "usage" in one] == [6] * usage_asked


def test_a_space_at_the_end_is_written_again_and_left_out() -> None:
    for first in (" b", "b"):
        told = objects(Joint(delivered("a "), 20, 5).fit(event(first) + event(" c")))
        assert [one["choices"][0]["delta"]["content"] for one in told] == ["b", " c"]


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("def f():\n  ", ["    return 1"], "def f():\n    return 1"),
        ("if x:\n   ", ["       ", " y"], "if x:\n        y"),
        ("a   ", [" ", "  b"], "a   b"),
        ("a   ", [" ", "b"], "a   b"),
        ("a   ", ["b"], "a   b"),
        ("a ", ["\tb"], "a \tb"),
    ],
)
def test_no_blank_is_lost_or_written_twice(before: str, after: list[str], whole: str) -> None:
    """The next replica writes from before the blanks at the end, and may write other ones."""
    told = objects(Joint(delivered(before), 20, 5).fit(b"".join(map(event, after))))
    assert before + "".join(one["choices"][0]["delta"]["content"] for one in told) == whole


def test_an_ending_in_the_engines_place() -> None:
    told = objects(ending({"id": "chatcmpl-1", "created": 1}, "m", "length", (20, 5)))
    assert [one["choices"] for one in told] == [[{"index": 0, "delta": {}, "finish_reason": "length"}], []]
    assert told[1]["usage"] == {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
    assert ending({}, "m", "", None) == b"data: [DONE]\n\n"


# -- the whole way -----------------------------------------------------------------------------------------------------------
def ask(service: Service, model: str = "twins", **fields: Any) -> Any:
    messages = [{"role": "user", "content": secrets.token_hex()}]  # which no replica remembers
    body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}, **fields}
    with service.http() as http:
        answer = http.post("/v1/chat/completions", json=body)
    answer.record = lambda: service.usage(answer.headers["x-request-id"])
    answer.told = objects(answer.content)
    answer.text_told = "".join(
        one["choices"][0]["delta"].get("content") or "" for one in answer.told if one.get("choices")
    )
    return answer


def assert_one_whole_answer(answer: Any, text: str = WHOLE) -> None:
    assert answer.text_told == text
    assert len({one["id"] for one in answer.told}) == 1
    roles = [one for one in answer.told if one["choices"] and "role" in one["choices"][0]["delta"]]
    assert roles == answer.told[:1]
    assert [one["choices"][0]["finish_reason"] for one in answer.told if one["choices"]][-1] in ("stop", "length")
    assert answer.text.endswith("data: [DONE]\n\n")
    usage, record = answer.told[-1]["usage"], answer.record()
    assert usage["completion_tokens"] == record["completion_tokens"] == len(text.split())
    assert usage["prompt_tokens"] == record["prompt_tokens"]
    assert record["outcome"] == "completed"


@pytest.mark.e2e
@pytest.mark.parametrize("how", ["cut_after", "error_after"])
def test_another_replica_goes_on(service: Service, how: str) -> None:
    for standin in ("first", "second"):
        service.standins[standin].tell(chunks=30, token_seconds=0.005)
    service.standins["first"].tell(**{how: 12})
    whole_until_the_first_is_asked(service)


def whole_until_the_first_is_asked(service: Service) -> None:
    """It rests for some seconds after failures."""

    def the_first_was_asked() -> bool:
        answer = ask(service)
        assert_one_whole_answer(answer)
        assert answer.record()["replica"] == "twins/2"
        assert answer.record()["resumed"] == (answer.headers["x-replica"] == "twins/1")
        return answer.headers["x-replica"] == "twins/1"

    until(the_first_was_asked)


@pytest.mark.e2e
def test_the_only_replica_goes_on_when_it_is_back(service: Service) -> None:
    standin = service.standins["alpha"]
    standin.tell(chunks=30, silent_after=12)
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(ask(service, "alpha")))
    asking.start()
    until(lambda: [entry["deltas"] for entry in standin.seen()] == [12])
    standin.stop()
    standin.options = ["--switches", json.dumps({"chunks": 30})]
    standin.start()
    standin.options = []
    asking.join()
    assert_one_whole_answer(found[0])
    assert found[0].record()["resumed"] == 1


@pytest.mark.e2e
def test_it_goes_on_twice_at_most(service: Service) -> None:
    service.standins["alpha"].tell(chunks=30, token_seconds=0.005, cut_after=7)
    answer = ask(service, "alpha")
    pieces = answer.text_told.split()
    assert len(pieces) > 7
    assert answer.text_told == "".join(f"word{number} " for number in range(len(pieces)))
    assert answer.told[-1]["error"]["code"] == "upstream_error"
    record = answer.record()
    assert (record["outcome"], record["completion_tokens"], record["resumed"]) == ("failed", len(pieces), 2)


@pytest.mark.e2e
def test_one_that_is_lost_before_its_first_token(service: Service) -> None:
    for standin in ("first", "second"):
        service.standins[standin].tell(chunks=30)
    service.standins["first"].tell(error_after=0, token_seconds=0.001)
    whole_until_the_first_is_asked(service)


@pytest.mark.e2e
def test_an_answer_of_which_only_the_end_is_missing(service: Service) -> None:
    standin = service.standins["alpha"]
    standin.tell(chunks=30, token_seconds=0.001, cut_after=20)
    answer = ask(service, "alpha", max_tokens=20)
    assert_one_whole_answer(answer, "".join(f"word{number} " for number in range(20)))
    assert answer.record()["resumed"] == 0
    standin.tell(chunks=8, cut_after=None, after_finish="cut")
    answer = ask(service, "alpha", logprobs=True)  # which nobody could go on with
    assert answer.text.endswith("data: [DONE]\n\n")
    for usage in (True, False):
        answer = ask(service, "alpha", stream_options={"include_usage": usage})
        assert answer.text.endswith("data: [DONE]\n\n")
        assert ("usage" in answer.told[-1]) == usage
        assert answer.record()["completion_tokens"] == 8


@pytest.mark.e2e
@pytest.mark.parametrize("how", ["refuses_to_go_on", "odd_template"])
def test_a_template_that_makes_something_else_of_an_answers_beginning(service: Service, how: str) -> None:
    """Then the answer is gone on with as a text."""
    for standin in ("first", "second"):
        service.standins[standin].tell(chunks=30, token_seconds=0.005, **{how: True})
    service.standins["first"].tell(cut_after=7)
    whole_until_the_first_is_asked(service)
    assert "/v1/completions" in {entry["path"] for entry in service.standins["second"].seen()}


@pytest.mark.e2e
def test_a_schema_cannot_be_kept_to_in_a_text(service: Service) -> None:
    service.standins["alpha"].tell(chunks=30, token_seconds=0.005, cut_after=7, odd_template=True)
    answer = ask(service, "alpha", response_format={"type": "json_object"})
    assert answer.told[-1]["error"]["code"] == "upstream_error"
    assert answer.record()["completion_tokens"] == len(answer.text_told.split()) > 0


@pytest.mark.e2e
def test_events_that_come_in_pieces_are_passed_on_whole(service: Service) -> None:
    """So that nothing has to be taken back: the last bytes of a dying engine may be half an event."""
    service.standins["first"].tell(chunks=30, token_seconds=0.002, half_after=9)
    service.standins["second"].tell(chunks=30)
    whole_until_the_first_is_asked(service)


@pytest.mark.e2e
def test_a_drain_that_is_over_moves_what_still_streams(service: Service) -> None:
    """The supervisor ends the process then. Until it does, the answer goes on where it is, and nothing new comes."""
    for standin in ("first", "second"):
        service.standins[standin].tell(chunks=30, silent_after=12)
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(ask(service)))
    asking.start()
    by_name = {"twins/1": "first", "twins/2": "second"}
    [busy] = until(lambda: [name for name in by_name if _written(service.standins[by_name[name]]) == [12]])
    for standin in set(by_name.values()) - {by_name[busy]}:
        service.standins[standin].tell(silent_after=None)
    change = "UPDATE models_app_replica SET state = ? WHERE port = ?"
    port = service.standins[by_name[busy]].port
    service.change(change, "draining", port)
    try:
        until(lambda: ask(service, max_tokens=1).headers["x-replica"] != busy)
        service.standins[by_name[busy]].stop()
        asking.join()
    finally:
        service.change(change, "ready", port)
    assert_one_whole_answer(found[0])
    assert (found[0].headers["x-replica"], found[0].record()["resumed"]) == (busy, 1)
    assert found[0].record()["replica"] != busy


def _written(standin: StandIn) -> list[int]:
    return [entry["deltas"] for entry in standin.seen()]
