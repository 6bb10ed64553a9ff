"""Learning the figures from the end of an answer, however it was cut into chunks."""

import json

import pytest

from gateway.usage import StreamMeter, TokenCount, read_figures


def chunk(delta: dict, **extra) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta}], **extra}).encode() + b"\n\n"


TIMINGS = {"cache_n": 20, "prompt_n": 12, "predicted_n": 3, "predicted_per_second": 50.0, "prompt_per_second": 9.0}
STREAM = (
    chunk({"role": "assistant", "content": None})
    + b"".join(chunk({"content": text}) for text in ("a", '\n\ndata: {"usage":{"prompt_tokens":9}}', "c"))
    + chunk({}, timings=TIMINGS)
    + b"data: [DONE]\n\n"
)
ANTHROPIC = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"cache_read_input_tokens":31,"input_tokens":1,'
    b'"output_tokens":0}}}\n\nevent: content_block_delta\ndata: {"delta":{"text":"A"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":3}}\n\nevent: message_stop\ndata: {}\n\n'
)


def metered(data: bytes, size: int) -> StreamMeter:
    meter = StreamMeter()
    for at in range(0, len(data), size):
        meter.feed(data[at : at + size])
    return meter


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_figures_come_from_the_last_event(size: int) -> None:
    meter = metered(STREAM, size)
    figures = meter.figures()
    assert (figures.prompt, figures.cached, figures.completion, figures.tokens_per_second) == (32, 20, 3, 50.0)
    assert meter.ended


@pytest.mark.parametrize("size", [100_000, 300])
def test_text_that_reads_like_an_event_is_not_counted(size: int) -> None:
    assert abs(metered(STREAM, size).events - 6) <= (0 if size > len(STREAM) else 1)


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
