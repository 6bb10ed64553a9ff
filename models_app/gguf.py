"""Reading the header of a GGUF file: is it one, is it whole, and what is in it.

Arrays (a vocabulary has 100,000 entries and more) are stepped over, so this takes milliseconds and a few MB. Every count and
length in the file is checked against bounds before it is used: the file may come from anywhere. See
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md for the format.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 65_536
MAX_TENSORS = 1_000_000
MAX_ARRAY = 50_000_000
MAX_STRING = 64 * 1024 * 1024
MAX_KEPT_STRING = 4096
CHUNK = 1024 * 1024

# value type -> struct format
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

# tensor type -> (values in a block, bytes of a block); a type that is not listed is taken as of unknown size
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66),
    39: (32, 17),
}  # fmt: skip
# general.file_type -> the name people know it by
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
SPLIT_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf\Z")


class GgufError(Exception):
    """The file cannot be used. ``code`` and ``params`` are those of ``models_app.reasons``."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code, params)
        self.code, self.params = code, params


@dataclass(frozen=True)
class GgufFacts:
    architecture: str
    name: str
    quantization: str
    parameters: int
    size: int  # bytes, of all parts
    context_length: int  # that the model was trained for; 0: not said
    layers: int
    embedding_length: int
    heads: int
    kv_heads: int
    key_length: int
    value_length: int
    vocabulary: int
    chat_template: bool
    pooling: bool  # says itself how an embedding is made of its tokens


def read_facts(path: Path) -> GgufFacts:
    """Raises GgufError when it is no GGUF, is damaged, or is cut short; OSError when it cannot be read."""
    with path.open("rb") as stream:
        reader = _Reader(stream, path.stat().st_size)
        try:
            values, tensors = _header(reader)
        except _EndOfFile:
            raise GgufError("gguf_cut_short", size=reader.size, needed=max(reader.size + 1, reader.wanted)) from None
        _check_whole(reader, values, tensors)
    return _facts(values, tensors, _size_of_all_parts(path, reader.size))


class _EndOfFile(Exception):
    pass


@dataclass(frozen=True)
class _Tensor:
    values: int
    kind: int
    offset: int

    @property
    def nbytes(self) -> int:
        block = BLOCKS.get(self.kind)
        return -(-self.values // block[0]) * block[1] if block else 0


class _Reader:
    """Little-endian values from a buffered window over the file."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        self.buffer, self.position, self.base = b"", 0, 0
        self.wanted = 0

    @property
    def offset(self) -> int:
        return self.base + self.position

    def need(self, count: int) -> int:
        """Makes ``count`` bytes available and returns where in the buffer they start."""
        if self.position + count > len(self.buffer):
            self._fill(count)
        start = self.position
        self.position += count
        return start

    def _fill(self, count: int) -> None:
        start = self.offset
        if start + count > self.size:
            self.wanted = start + count
            raise _EndOfFile
        self.stream.seek(start)
        self.buffer, self.base, self.position = self.stream.read(max(count, CHUNK)), start, 0
        if len(self.buffer) < count:  # it shrank while it was read
            raise _EndOfFile

    def take(self, count: int) -> bytes:
        start = self.need(count)
        return self.buffer[start : start + count]

    def skip(self, count: int) -> None:
        if self.offset + count > self.size:
            self.wanted = self.offset + count
            raise _EndOfFile
        self.position += count

    def scalar(self, kind: str) -> Any:
        start = self.need(struct.calcsize("<" + kind))
        return struct.unpack_from("<" + kind, self.buffer, start)[0]

    def count(self, most: int, what: str) -> int:
        value: int = self.scalar("Q")
        if value > most:
            raise GgufError("gguf_damaged", what=what, at=self.offset - 8)
        return value

    def text(self) -> str:
        length = self.count(MAX_STRING, "string")
        kept = min(length, MAX_KEPT_STRING)
        text = self.take(kept).decode("utf-8", "replace")
        self.skip(length - kept)
        return text

    def skip_string(self) -> None:
        self.skip(self.count(MAX_STRING, "string"))


def _header(reader: _Reader) -> tuple[dict[str, Any], list[_Tensor]]:
    if reader.size < 4 or reader.take(4) != MAGIC:
        raise GgufError("gguf_not_one")
    version: int = reader.scalar("I")
    if version not in VERSIONS:
        raise GgufError("gguf_version", version=version)
    tensors = reader.count(MAX_TENSORS, "number of tensors")
    keys = reader.count(MAX_KEYS, "number of keys")
    values: dict[str, Any] = {}
    for _number in range(keys):
        name = reader.text()
        values[name] = _value(reader, reader.scalar("I"), 0)
    return values, [_tensor(reader) for _number in range(tensors)]


def _value(reader: _Reader, kind: int, depth: int) -> Any:
    """A scalar or string as it is; for an array its length."""
    if kind in SCALARS:
        return reader.scalar(SCALARS[kind])
    if kind == STRING:
        return reader.text()
    if kind == ARRAY and depth < 4:
        return _skip_array(reader, depth)
    raise GgufError("gguf_damaged", what="type of a value", at=reader.offset)


def _skip_array(reader: _Reader, depth: int) -> Any:
    kind: int = reader.scalar("I")
    length = reader.count(MAX_ARRAY, "length of an array")
    if kind in SCALARS:
        width = struct.calcsize("<" + SCALARS[kind])
        if kind != 6 and 0 < length <= 1024:  # such as the number of heads of each layer
            start = reader.need(width * length)
            return list(struct.unpack_from(f"<{length}{SCALARS[kind]}", reader.buffer, start))
        reader.skip(width * length)
    elif kind == STRING:
        for _number in range(length):
            reader.skip_string()
    else:
        for _number in range(length):
            _value(reader, kind, depth + 1)
    return length


def _tensor(reader: _Reader) -> _Tensor:
    reader.skip_string()
    dimensions: int = reader.scalar("I")
    if not 1 <= dimensions <= 8:
        raise GgufError("gguf_damaged", what="shape of a tensor", at=reader.offset - 4)
    values = 1
    for _number in range(dimensions):
        values *= reader.count(1 << 40, "shape of a tensor")
    return _Tensor(values, reader.scalar("I"), reader.scalar("Q"))


def _check_whole(reader: _Reader, values: dict[str, Any], tensors: list[_Tensor]) -> None:
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise GgufError("gguf_damaged", what="alignment", at=reader.offset)
    data = -(-reader.offset // alignment) * alignment
    needed = max((data + tensor.offset + tensor.nbytes for tensor in tensors), default=0)
    if needed > reader.size:
        raise GgufError("gguf_cut_short", size=reader.size, needed=needed)


def _size_of_all_parts(path: Path, size: int) -> int:
    """Large models come as ``…-00001-of-00004.gguf``; the engine opens the other parts itself."""
    match = SPLIT_NAME.search(path.name)
    if match is None or match[1] != "00001":
        return size
    for number in range(2, int(match[2]) + 1):
        part = path.with_name(f"{path.name[: match.start()]}-{number:05}-of-{match[2]}.gguf")
        if not part.is_file():
            raise GgufError("gguf_part_missing", part=part.name)
        size += part.stat().st_size
    return size


def _facts(values: dict[str, Any], tensors: list[_Tensor], size: int) -> GgufFacts:
    architecture = str(values.get("general.architecture", ""))

    def number(key: str, default: int = 0) -> int:
        value = values.get(f"{architecture}.{key}")
        found = [
            part for part in (value if isinstance(value, list) else [value]) if isinstance(part, int) and part >= 0
        ]
        return max(found, default=default)

    heads = number("attention.head_count")
    embedding = number("embedding_length")
    head_length = embedding // heads if heads else 0
    file_type = values.get("general.file_type")
    return GgufFacts(
        architecture=architecture,
        name=str(values.get("general.name", "")),
        quantization=FILE_TYPES.get(file_type, "") if isinstance(file_type, int) else "",
        parameters=sum(tensor.values for tensor in tensors),
        size=size,
        context_length=number("context_length"),
        layers=number("block_count"),
        embedding_length=embedding,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        key_length=number("attention.key_length", head_length),
        value_length=number("attention.value_length", head_length),
        vocabulary=_length(values.get("tokenizer.ggml.tokens")),
        chat_template="tokenizer.chat_template" in values,
        pooling=f"{architecture}.pooling_type" in values,
    )


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else max(0, value) if isinstance(value, int) else 0
