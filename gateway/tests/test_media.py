"""Media that a request brings along, and those it only names."""

from __future__ import annotations

import base64
import struct

import pytest

from gateway import bodies, media
from gateway.endpoints import ENDPOINTS
from gateway.errors import GatewayError


def png(width: int, height: int, more: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", len(head), b"IHDR") + head + more


def jpeg(width: int, height: int) -> bytes:
    """Behind a comment."""
    comment = struct.pack(">BBH", 0xFF, 0xFE, 6) + b"Hi!\0"
    return b"\xff\xd8" + comment + struct.pack(">BBHBHHB", 0xFF, 0xC0, 11, 8, height, width, 1) + b"\1\x11\0\xff\xd9"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + b";"


def bmp(width: int, height: int) -> bytes:
    """Upside down."""
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, -height, 1, 24, 0, 0, 0, 0, 0, 0)


def packed(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


SMALL = packed(png(20, 20))
PICTURE = f"data:image/png;base64,{SMALL}"
SOUND = packed(b"RIFF\x24\0\0\0WAVEfmt ")
HERE = [
    ("chat.completions", "messages", {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}),
    ("chat.completions", "messages", {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}),
    ("responses", "input", {"type": "input_image", "image_url": PICTURE}),
    (
        "messages",
        "messages",
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": SMALL}},
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
    picture = packed(png(1000, 1000, more=bytes(200_000)))
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    plan = bodies.check(ENDPOINTS["chat.completions"], request("messages", part))
    assert media.USUAL_TOKENS < plan.likely_read(8192) < 2 * media.USUAL_TOKENS
    assert plan.most_read(8192) == 8192


@pytest.mark.parametrize("data", ["http://10.0.0.1/x", "file:///etc/passwd"])
def test_pictures_beside_a_prompt(data: str) -> None:
    completions = ENDPOINTS["completions"]
    with pytest.raises(GatewayError):
        bodies.check(completions, {"prompt": [{"prompt_string": "What is it?", "multimodal_data": [data]}]})
    plan = bodies.check(completions, {"prompt": [{"prompt_string": "What?", "multimodal_data": [SMALL]}]})
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


# -- what it unpacks to ------------------------------------------------------------------------------------------------------
def ways(raw: bytes) -> list[tuple[str, dict]]:
    """To send it, by endpoint."""
    sent = packed(raw)
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{sent}"}}
    source = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": sent}}
    return [
        ("chat.completions", request("messages", url)),
        ("chat.completions", request("messages", {"type": "input_audio", "input_audio": {"data": sent}})),
        ("chat.completions", request("messages", {"type": "image_url", "image_url": {"url": sent}})),
        ("responses", request("input", {"type": "input_image", "image_url": f"data:image/png;base64,{sent}"})),
        ("messages", request("messages", source) | {"max_tokens": 1}),
        ("messages.count_tokens", request("messages", {"type": "tool_result", "content": [source]})),
        ("completions", {"prompt": [{"prompt_string": "What?", "multimodal_data": [sent]}]}),
    ]


def refusal(endpoint: str, body: dict) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        bodies.check(ENDPOINTS[endpoint], body)
    assert refused.value.status == 400
    return refused.value


@pytest.mark.parametrize("picture", [png, jpeg, gif, bmp])
def test_a_picture_that_unpacks_to_gigabytes_reaches_no_engine(picture) -> None:
    for endpoint, body in ways(picture(8000, 8000)):
        assert bodies.check(ENDPOINTS[endpoint], body).pictures.count == 1
    for endpoint, body in ways(picture(30_000, 2134)):
        assert "65 million" in str(refusal(endpoint, body).message)


def test_pictures_count_together() -> None:
    parts = [{"type": "image_url", "image_url": {"url": f"data:;base64,{packed(png(5000, 5000))}"}}] * 3
    body = {"model": "m", "messages": [{"role": "user", "content": parts[:2]}, {"role": "user", "content": parts[2:]}]}
    assert "75 million" in str(refusal("chat.completions", body).message)
    del body["messages"][1:]
    assert bodies.check(ENDPOINTS["chat.completions"], body).pictures.count == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0\x02" + bytes(9) + struct.pack("<HHBB", 60_000, 60_000, 24, 0),  # TGA
        b"8BPS" + bytes(40),
        b"P6 60000 60000 255 ",
        b"#?RADIANCE\n",
        b"<svg width='1' height='1'/>",
        b"RIFF\x24\0\0\0WEBPVP8 " + bytes(20),
        b"fLaC" + bytes(40),
        b"%PDF-1.7",
        png(20, 20)[:18],
        png(0, 20),
    ],
)
def test_what_tells_no_size_reaches_no_engine(raw: bytes) -> None:
    for endpoint, body in ways(raw):
        assert "PNG, JPEG, GIF or BMP" in str(refusal(endpoint, body).message)


@pytest.mark.parametrize("raw", [b"ID3\4", b"\xff\xfb\x90\x64", b"RIFF\x24\0\0\0WAVEfmt "])
def test_sounds_have_no_pixels(raw: bytes) -> None:
    for endpoint, body in ways(raw):
        assert bodies.check(ENDPOINTS[endpoint], body).pictures.count == 1


def test_however_the_base64_is_written() -> None:
    """llama-server takes either alphabet, with padding or without."""
    raw = gif(30_000, 30_000) + b"\xfb\xff\xfe"
    for text in (packed(raw), packed(raw).rstrip("="), base64.urlsafe_b64encode(raw).decode()):
        assert "million" in str(
            refusal("completions", {"prompt": {"prompt_string": "x", "multimodal_data": [text]}}).message
        )
    refusal("completions", {"prompt": {"prompt_string": "x", "multimodal_data": ["A"]}})
