"""What is in the bytes of a picture or sound, as far as it decides how much memory an engine takes to unpack it. Pure.

A picture of some hundred bytes may unpack to gigabytes, and its header says so. What has no header to go by (TGA), or packs
silence without limit (FLAC), reaches no engine.
"""

from __future__ import annotations

import binascii
import io
from collections.abc import Iterator
from typing import Any

import imagesize
from django.utils.translation import gettext_lazy as _

from gateway import errors

MOST_PIXELS = 64_000_000  # of all pictures of a request; an engine unpacks each to three bytes a pixel
PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM")
ID3, RIFF, WAVE = b"ID3", b"RIFF", b"WAVE"
# Both alphabets of base64 are one to llama-server.
ALPHABET = bytes.maketrans(b"-_", b"+/")
DATA = "data:"


def payloads(part: Any) -> Iterator[str]:
    """The base64 in a part of a message, or in llama-server's own list of media."""
    if isinstance(part, str):
        yield part.partition(",")[2] if part.startswith(DATA) else part
        return
    pending = [part]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict) and value.get("type") != "text":
            for name, inner in value.items():
                if not isinstance(inner, str):
                    pending.append(inner)
                elif inner.startswith(DATA):
                    yield inner.partition(",")[2]
                elif name == "data" or name.endswith("url"):
                    yield inner


def pixels(payload: str, field: str) -> int:
    """Of a picture; 0 of a sound. Raises GatewayError for what is neither."""
    raw = _bytes_of(payload)
    if raw.startswith(PICTURES):
        width, height = imagesize.get(io.BytesIO(raw), exif_rotation=False)
        if width > 0 and height > 0:
            return int(width) * int(height)
    elif _is_sound(raw):
        return 0
    raise errors.invalid(
        _("Pictures must be PNG, JPEG, GIF or BMP, sounds WAV or MP3, in base64; one of this request's is not."), field
    )


def too_many(found: int, field: str) -> errors.GatewayError:
    template = _("The pictures of a request may have %(most)d million pixels together; these have %(found)d million.")
    return errors.invalid(template, field, most=MOST_PIXELS // 10**6, found=-(-found // 10**6))


def _bytes_of(payload: str) -> bytes:
    try:
        return binascii.a2b_base64(payload.encode("ascii", "ignore").translate(ALPHABET) + b"==")
    except binascii.Error:
        return b""


def _is_sound(raw: bytes) -> bool:
    is_frame = len(raw) > 1 and raw[0] == 0xFF and raw[1] & 0xE0 == 0xE0  # of MPEG audio
    return is_frame or raw.startswith(ID3) or (raw.startswith(RIFF) and raw[8:12] == WAVE)
