"""Learning the figures from the end of an answer, however it was cut into chunks."""

import json

import pytest

from gateway.endpoints import ENDPOINTS
from gateway.usage import StreamMeter, TokenCount, read_figures
from gateway.whole_events import WholeEvents

PIECE, BARE = ENDPOINTS["chat.completions"].piece, ENDPOINTS["chat.completions"].bare


def chunk(delta: dict, finish_reason: str | None = None, index: int = 0, **extra) -> bytes:
    choice = {"finish_reason": finish_reason, "index": index, "delta": delta}
    return b"data: " + json.dumps({"choices": [choice], **extra}, separators=(",", ":")).encode() + b"\n\n"


TIMINGS = {"cache_n": 20, "prompt_n": 12, "predicted_n": 3, "predicted_per_second": 50.0, "prompt_per_second": 9.0}
STREAM = (
    chunk({"role": "assistant", "content": None})
    + b"".join(chunk({"content": text}) for text in ("a", '\n\ndata: {"usage":{"prompt_tokens":9}}', "c"))
    + chunk({}, "stop", timings=TIMINGS)
    + b"data: [DONE]\n\n"
)
ANTHROPIC = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"cache_read_input_tokens":31,"input_tokens":1,'
    b'"output_tokens":0}}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"A"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":3}}\n\nevent: message_stop\ndata: {}\n\n'
)


def metered(data: bytes, size: int, answers: int = 1, prompts: int = 1) -> StreamMeter:
    meter, events = StreamMeter(PIECE, BARE, answers, prompts), WholeEvents()
    for at in range(0, len(data), size):
        meter.feed(events.feed(data[at : at + size]))
    return meter


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_figures_come_from_the_last_event(size: int) -> None:
    meter = metered(STREAM, size)
    figures = meter.figures()
    assert (figures.prompt, figures.cached, figures.completion, figures.tokens_per_second) == (32, 20, 3, 50.0)
    assert meter.ended


@pytest.mark.parametrize("size", [1, 7, 300, 100_000])
def test_pieces_are_counted_however_the_stream_is_cut_and_whatever_their_text(size: int) -> None:
    assert metered(STREAM, size).delivered == 3


@pytest.mark.parametrize("size", [1, 100_000])
def test_only_tokens_are_counted(size: int) -> None:
    """Not what tells of progress, fails, gives figures or ends; and no event of which the end never came."""
    others = [
        chunk({"role": "assistant", "content": None}, prompt_progress={"total": 4, "processed": 2}),
        b'data: {"error":{"code":500,"message":"finish_reason is null","type":"server_error"}}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3}}\n\ndata: null\n\n',
        chunk({"content": "cut"})[:-2],
    ]
    assert metered(STREAM + b"".join(others), size).delivered == 3


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("completions", b'data: {"choices":[{"text":"A","index":0,"finish_reason":null}]}\n\n'),
        ("messages", b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"A"}}\n\n'),
        (
            "responses",
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"m","delta":"A"}\n\n',
        ),
    ],
)
def test_each_protocol_has_its_own_pieces(name: str, stream: bytes) -> None:
    meter = StreamMeter(ENDPOINTS[name].piece, ENDPOINTS[name].bare)
    for _turn in range(3):
        meter.feed(stream + b'event: ping\ndata: {"type":"ping"}\n\n')
    assert meter.delivered == 3


@pytest.mark.parametrize(("answers", "prompts", "expected"), [(2, 1, 32), (2, 2, 64), (4, 2, 64)])
def test_several_answers_have_figures_of_their_own(answers: int, prompts: int, expected: int) -> None:
    """Answers to one prompt share its cost."""
    ends = [chunk({}, "stop", index, timings=TIMINGS) for index in range(answers)]
    inside = chunk({"content": "a"}, timings={**TIMINGS, "predicted_n": 1})  # timings_per_token
    figures = metered(inside * 3 + b"".join(ends) + b"data: [DONE]\n\n", 50, answers, prompts).figures()
    assert (figures.prompt, figures.completion) == (expected, 3 * answers)


def test_an_answer_that_quotes_the_end_has_not_ended() -> None:
    assert not metered(chunk({"content": "data: [DONE]"}), 1000).ended


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("answers", [1, 2])
def test_an_answer_has_ended_with_its_finish_reason(size: int, answers: int) -> None:
    """Every one of several; and neither half an event nor an answer's text says so."""
    text = chunk({"content": '"finish_reason":"stop"'})
    *before, last = [chunk({}, "stop", index, timings=TIMINGS) for index in range(answers)]
    assert not metered(b"".join([text, *before, last[:-1]]), size, answers).ended
    assert metered(b"".join([text, *before, last]), size, answers).ended


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("messages", b'event: message_delta\ndata: {"delta":{"stop_reason":"end_turn"},"type":"message_delta"}\n\n'),
        ("responses", b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n'),
    ],
)
def test_each_protocol_has_its_own_end(name: str, stream: bytes) -> None:
    meter = StreamMeter(ENDPOINTS[name].piece, finish=ENDPOINTS[name].finish)
    meter.feed(b'event: message_start\ndata: {"message":{"stop_reason":null},"type":"message_start"}\n\n')
    assert not meter.ended
    meter.feed(stream)
    assert meter.ended


def test_anthropic_tells_the_prompt_first_and_the_answer_last() -> None:
    meter = metered(ANTHROPIC, 10_000)
    figures = meter.figures()
    assert (figures.prompt, figures.cached, figures.completion, meter.ended) == (32, 31, 3, True)


def test_a_stream_that_broke_off_has_no_figures() -> None:
    meter = metered(STREAM[: STREAM.index(b"timings")], 50)
    assert (meter.figures(), meter.ended) == (None, False)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 2}}, TokenCount(5, 0, 2)),
        (
            {"usage": {"input_tokens": 31, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 24}}},
            TokenCount(31, 24, 3),
        ),
        ({"usage": {"cache_read_input_tokens": 24, "input_tokens": 8, "output_tokens": 3}}, TokenCount(32, 24, 3)),
        ({"usage": {"prompt_tokens": 7, "total_tokens": 7}}, TokenCount(7, 0, 0)),
        ({"usage": {"prompt_tokens": -7, "completion_tokens": "x"}}, TokenCount(0, 0, 0)),
        ({"usage": None}, None),
        ({}, None),
    ],
)
def test_figures_of_answers_in_one_piece(body: dict, expected: TokenCount | None) -> None:
    assert read_figures(json.dumps(body).encode()) == expected
