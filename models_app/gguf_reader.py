"""Reading the header and the tensor table of one GGUF file, whatever is in it, within bounds.

Arrays (a vocabulary has 100,000 entries and more) are stepped over; of the keys only small values are kept. Every count and
length is checked before it is used, and what llama.cpp would refuse is refused here (ggml's gguf.cpp): two keys or tensors of
one name, types and shapes that do not exist, rows that are no whole blocks, offsets that are not aligned, overlap, or lie
outside of the file. Only the standard library: ``models_app.gguf_child`` runs this without Django.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from models_app.gguf_tables import ARRAY, BLOCKS, LAST_TYPE, REMOVED, SCALARS, STRING, WIDTHS

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# Most that a header may have. The largest models known have about 100 keys, 2,000 tensors and 800,000 strings.
MAX_KEYS = 16_384
MAX_TENSORS = 100_000
MAX_STRINGS = 4_000_000
MAX_ARRAY = 50_000_000
MAX_STRING = 64 * 1024 * 1024
MAX_NAME = 1024
MAX_TENSOR_NAME = 63  # ggml keeps 64 bytes
MAX_DIMENSIONS = 4
MAX_VALUES = (1 << 63) - 1
MAX_ALIGNMENT = 1024 * 1024
KEPT_TEXT = 256
KEPT_ARRAY = 1024
MAX_KEPT = 65_536  # values of kept arrays together
CHUNK = 256 * 1024
# Arrays that are kept: what is said for each layer.
PER_LAYER = (".head_count", ".head_count_kv", ".feed_forward_length", ".sliding_window_pattern")


class GgufError(Exception):
    """The file cannot be used. ``code`` and ``params`` are those of ``models_app.reasons``."""

    def __init__(self, code: str, **params: Any) -> None:
        super().__init__(code, params)
        self.code, self.params = code, params


class _EndOfFile(Exception):
    pass


@dataclass(frozen=True)
class Tensor:
    name: str
    values: int
    row: int  # values of its first dimension
    kind: int
    offset: int  # from the start of the data

    @property
    def nbytes(self) -> int:
        """Of a type that is not known here: the least it could be, at one bit for two numbers."""
        block = BLOCKS.get(self.kind)
        return self.values // block[1] * block[2] if block else self.values // 16


@dataclass
class Header:
    size: int  # bytes of the file
    values: dict[str, Any] = field(default_factory=dict)  # of an array that is not kept: its length
    tensors: list[Tensor] = field(default_factory=list)
    data: int = 0  # where the tensors begin


def read_header(path: Path, size: int | None = None) -> Header:
    """``size``: bytes of the whole file, of which ``path`` may be the beginning. Raises GgufError for all that is no whole, sound
    GGUF; OSError when it cannot be read."""
    with path.open("rb") as stream:
        return read_stream(stream, path.stat().st_size if size is None else size)


def read_stream(stream: BinaryIO, size: int) -> Header:
    """``size``: bytes of the whole file. Raises GgufError."""
    reader = _Reader(stream, size)
    try:
        header = _header(reader)
    except _EndOfFile:
        raise GgufError("gguf_cut_short", size=reader.size, needed=max(reader.size + 1, reader.wanted)) from None
    _check_tensors(header)
    return header


def damaged(what: str, at: int) -> GgufError:
    return GgufError("gguf_damaged", what=what, at=at)


class _Reader:
    """Little-endian values from a buffered window over the file."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size
        self.buffer, self.position, self.base = b"", 0, 0
        self.wanted = 0
        self.strings, self.kept = MAX_STRINGS, MAX_KEPT

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
            raise damaged(what, self.offset - 8)
        return value

    def name(self, most: int, what: str) -> str:
        return self.take(self.count(most, what)).decode("utf-8", "replace")

    def text(self) -> str:
        """Its first characters."""
        length = self.count(MAX_STRING, "string")
        kept = min(length, KEPT_TEXT)
        text = self.take(kept).decode("utf-8", "replace")
        self.skip(length - kept)
        return text

    def skip_strings(self, count: int) -> None:
        """A vocabulary: this loop is most of the time that a header takes, so it stays within one window at a time."""
        self.strings -= count
        if self.strings < 0:
            raise damaged("number of strings", self.offset)
        unpack, left = struct.Struct("<Q").unpack_from, count
        while left:
            position = self.need(8) if self.position + 8 > len(self.buffer) else self.position
            buffer, last = self.buffer, len(self.buffer) - 8
            while left and position <= last:
                (length,) = unpack(buffer, position)
                if length > MAX_STRING:
                    raise damaged("string", self.base + position)
                position += 8 + length
                left -= 1
            self.position = position
        self.skip(0)


def _header(reader: _Reader) -> Header:
    if reader.size < 4 or reader.take(4) != MAGIC:
        raise GgufError("gguf_not_one")
    _check_version(reader.scalar("I"))
    tensors = reader.count(MAX_TENSORS, "number of tensors")
    keys = reader.count(MAX_KEYS, "number of keys")
    header = Header(reader.size)
    for _number in range(keys):
        at = reader.offset
        name = reader.name(MAX_NAME, "name of a key")
        if name in header.values:
            raise GgufError("gguf_twice", name=shown(name), at=at)
        header.values[name] = _value(reader, name)
    names: set[str] = set()
    for _number in range(tensors):
        header.tensors.append(_tensor(reader, names))
    alignment = _alignment(header.values, reader.offset)
    header.data = -(-reader.offset // alignment) * alignment
    return header


def shown(name: str) -> str:
    """A name out of the file, fit for a sentence."""
    return "".join(sign if sign.isprintable() else "?" for sign in name[:64])


def _check_version(version: int) -> None:
    if version in VERSIONS:
        return
    if version & 0xFFFF == 0 and int.from_bytes(version.to_bytes(4, "little"), "big") in (1, *VERSIONS):
        raise GgufError("gguf_big_endian")
    raise GgufError("gguf_version", version=version)


def _value(reader: _Reader, name: str) -> Any:
    """A scalar or the start of a string as it is; of an array its length, or the values where they say something of layers."""
    kind: int = reader.scalar("I")
    if kind in SCALARS:
        return reader.scalar(SCALARS[kind])
    if kind == STRING:
        return reader.text()
    if kind != ARRAY:
        raise damaged("type of a value", reader.offset - 4)
    kind = reader.scalar("I")
    length = reader.count(MAX_ARRAY, "length of an array")
    if kind == STRING:
        reader.skip_strings(length)
    elif kind not in SCALARS:  # arrays in arrays are refused by llama.cpp as well
        raise damaged("type of an array", reader.offset - 12)
    elif name.endswith(PER_LAYER) and length <= KEPT_ARRAY and kind not in (6, 12):
        return _kept(reader, kind, length)
    else:
        reader.skip(WIDTHS[kind] * length)
    return length


def _kept(reader: _Reader, kind: int, length: int) -> list[int]:
    reader.kept -= length
    if reader.kept < 0:
        raise damaged("length of an array", reader.offset)
    start = reader.need(WIDTHS[kind] * length)
    return list(struct.unpack_from(f"<{length}{SCALARS[kind]}", reader.buffer, start))


def _tensor(reader: _Reader, names: set[str]) -> Tensor:
    at = reader.offset
    name = reader.name(MAX_TENSOR_NAME, "name of a tensor")
    if name in names:
        raise GgufError("gguf_twice", name=shown(name), at=at)
    names.add(name)
    dimensions: int = reader.scalar("I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise damaged("shape of a tensor", reader.offset - 4)
    values = 1
    sizes = [reader.scalar("Q") for _number in range(dimensions)]
    for size in sizes:
        values *= size
        if size > MAX_VALUES or values > MAX_VALUES:
            raise damaged("shape of a tensor", at)
    kind: int = reader.scalar("I")
    if kind > LAST_TYPE:
        raise damaged("type of a tensor", reader.offset - 4)
    if kind in REMOVED:
        raise GgufError("gguf_old_type", type=kind)
    if kind in BLOCKS and sizes[0] % BLOCKS[kind][1]:
        raise damaged("shape of a tensor", at)
    return Tensor(name, values, sizes[0], kind, reader.scalar("Q"))


def _alignment(values: dict[str, Any], at: int) -> int:
    alignment = values.get("general.alignment", 32)
    sound = isinstance(alignment, int) and 1 <= alignment <= MAX_ALIGNMENT and not alignment & (alignment - 1)
    if not sound:
        raise damaged("alignment", at)
    return int(alignment)


def _check_tensors(header: Header) -> None:
    """Each lies whole in the file, where it may begin, and none on another."""
    alignment = _alignment(header.values, header.data)
    end, needed = 0, 0
    for tensor in sorted(header.tensors, key=lambda one: (one.offset, one.nbytes)):
        if tensor.offset % alignment:
            raise GgufError("gguf_tensor_place", tensor=shown(tensor.name), at=header.data + tensor.offset)
        if tensor.offset < end:
            raise GgufError("gguf_tensor_overlap", tensor=shown(tensor.name), at=header.data + tensor.offset)
        end = tensor.offset + tensor.nbytes
        needed = max(needed, header.data + end)
    if needed > header.size:
        raise GgufError("gguf_cut_short", size=header.size, needed=needed)
