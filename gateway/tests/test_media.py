"""Media that a request brings along, and those it only names."""

from __future__ import annotations

import pytest

from gateway import bodies, media
from gateway.endpoints import ENDPOINTS
from gateway.errors import GatewayError

PICTURE = "data:image/png;base64,iVBORw0KGgo="
HERE = [
    ("chat.completions", "messages", {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}),
    ("chat.completions", "messages", {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}),
    ("responses", "input", {"type": "input_image", "image_url": PICTURE}),
    (
        "messages",
        "messages",
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
    ),
    ("messages.count_tokens", "messages", {"type": "tool_result", "content": [{"type": "image_url", "url": PICTURE}]}),
]
AWAY = [
    ("chat.completions", "messages", {"type": "image_url", "image_url": {"url": "http://10.0.0.1/x.png"}}),
    ("chat.completions", "messages", {"type": "image_url", "image_url": "HTTPS://example.org/x.png"}),
    ("chat.completions", "messages", {"type": "image_url", "image_url": {"url": "  file:///etc/passwd"}}),
    ("chat.completions", "messages", {"image_url": {"url": "http://10.0.0.1/x.png"}}),
    ("chat.completions", "messages", {"type": "input_audio", "input_audio": {"data": "http://10.0.0.1/x.wav"}}),
    ("chat.completions", "messages", {"type": "video_url", "video_url": {"url": ["ftp://10.0.0.1/x"]}}),
    ("responses", "input", {"type": "input_image", "image_url": "http://169.254.169.254/latest"}),
    ("responses", "input", {"type": "input_file", "file_url": "http://10.0.0.1/x.pdf"}),
    ("messages", "messages", {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/x.png"}}),
    (
        "messages.count_tokens",
        "messages",
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "http://[::1]/x"}}]},
    ),
]


def request(field: str, part: dict) -> dict:
    return {"model": "m", field: [{"role": "user", "content": [{"type": "text", "text": "What is http://it?"}, part]}]}


@pytest.mark.parametrize(("endpoint", "field", "part"), HERE)
def test_what_comes_along_is_taken_and_may_fill_the_context(endpoint: str, field: str, part: dict) -> None:
    plan = bodies.check(ENDPOINTS[endpoint], request(field, part))
    assert plan.prompt_bound > media.MOST_TOKENS
    assert plan.most_read(2048) == 2048


@pytest.mark.parametrize(("endpoint", "field", "part"), AWAY)
def test_nothing_is_fetched_for_anybody(endpoint: str, field: str, part: dict) -> None:
    with pytest.raises(GatewayError) as refused:
        bodies.check(ENDPOINTS[endpoint], request(field, part))
    assert (refused.value.status, refused.value.param) == (400, field)
    assert "data:image" in str(refused.value.message)


@pytest.mark.parametrize("said", ["x", 5, None, "message", "tool_use", "input_image", "text"])
def test_whatever_a_message_calls_itself(said: object) -> None:
    picture = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    for endpoint, field in (("chat.completions", "messages"), ("responses", "input"), ("messages", "messages")):
        body = {"model": "m", field: [{"role": "user", "type": said, "content": [picture]}], "max_tokens": 1}
        with pytest.raises(GatewayError):
            bodies.check(ENDPOINTS[endpoint], body)


def test_sounds_that_look_like_a_path_are_sounds() -> None:
    """An MP3 begins so."""
    part = {"type": "input_audio", "input_audio": {"data": "//uQxAAA", "format": "mp3"}}
    assert bodies.check(ENDPOINTS["chat.completions"], request("messages", part)).pictures.count == 1
    part = {"type": "document", "source": {"type": "text", "data": "Summary: nothing"}}
    assert bodies.check(ENDPOINTS["messages"], request("messages", part)).pictures.count == 1


def test_a_large_picture_is_not_taken_for_as_many_tokens_as_it_has_bytes() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 300_000}}
    plan = bodies.check(ENDPOINTS["chat.completions"], request("messages", part))
    assert media.USUAL_TOKENS < plan.likely_read(8192) < 2 * media.USUAL_TOKENS
    assert plan.most_read(8192) == 8192


@pytest.mark.parametrize("data", ["http://10.0.0.1/x", "file:///etc/passwd"])
def test_pictures_beside_a_prompt(data: str) -> None:
    completions = ENDPOINTS["completions"]
    with pytest.raises(GatewayError):
        bodies.check(completions, {"prompt": [{"prompt_string": "What is it?", "multimodal_data": [data]}]})
    plan = bodies.check(completions, {"prompt": [{"prompt_string": "What?", "multimodal_data": ["iVBORw0KGgo="]}]})
    assert plan.prompt_bound > media.MOST_TOKENS


def test_addresses_in_words_and_in_what_tools_are_given_are_no_media() -> None:
    messages = [
        {"role": "user", "content": "Look at http://example.org/x.png"},
        {"role": "assistant", "content": [{"type": "tool_use", "input": {"url": "http://example.org"}}]},
        {"role": "user", "content": [{"type": "tool_result", "content": "http://example.org"}]},
        {"role": "user", "content": [{"type": "text", "text": "https://example.org", "image": "http://x"}]},
    ]
    plan = bodies.check(ENDPOINTS["messages"], {"model": "m", "messages": messages, "max_tokens": 5})
    assert plan.prompt_bound < media.MOST_TOKENS
