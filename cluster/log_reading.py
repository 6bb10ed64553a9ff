"""Reading logs from their end: blocks backwards, never a whole file, across rotated files, tolerant of broken lines."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from llmplatform.lib.json_logging import KEPT_FILES, redact

BLOCK = 64 * 1024
MAX_LINE = 256 * 1024  # of a longer line only its end is read
MAX_SCANNED = 128 * 1024 * 1024  # a search for something rare ends here
# Processes share the file, so times are in order only to about this much.
DISORDER = timedelta(seconds=60)
LEVELS = {name: logging.getLevelName(name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
COLOURS = re.compile(rb"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class LogQuery:
    """``level`` is the least one shown; ``q`` a plain substring of any value, capital or small."""

    level: str = ""
    source: str = ""
    q: str = ""
    since: datetime | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", self.q.lower())

    def may_match(self, line: bytes) -> bool:
        """A cheap look at the undecoded line, so that a search parses only the lines that can hold what is sought."""
        return not self.q or json.dumps(self.q, ensure_ascii=False)[1:-1] in line.decode("utf-8", "replace").lower()

    def matches(self, entry: dict[str, Any]) -> bool:
        if self.level and LEVELS.get(str(entry.get("level")), -1) < LEVELS[self.level]:
            return False
        if self.source and entry.get("source") != self.source:
            return False
        if self.since is not None and ((written := written_at(entry)) is None or written < self.since):
            return False
        return not self.q or any(self.q in str(value).lower() for value in entry.values())


def parse_line(line: bytes) -> dict[str, Any]:
    """The entry of a line; what is not one of our JSON lines (a torn write, another program) becomes a bare message."""
    text = line.decode("utf-8", "replace")
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {"message": redact(text)}


def written_at(entry: dict[str, Any]) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(entry.get("time")))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def lines_backwards(stream: BinaryIO, end: int) -> Iterator[bytes]:
    """Complete lines that end before byte ``end``, last first."""
    position, tail = end, b""
    while position > 0:
        size = min(BLOCK, position)
        position -= size
        stream.seek(position)
        tail = stream.read(size) + tail
        first, *rest = tail.split(b"\n")
        yield from (line for line in reversed(rest) if line)
        tail = first[-MAX_LINE:]
    if tail:
        yield tail


def open_newest_first(path: Path) -> Iterator[BinaryIO]:
    """The log and its rotated parts. A rotation between two opens shows one file under two names: it is read once."""
    seen: set[int] = set()
    for candidate in (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, KEPT_FILES + 1))):
        try:
            stream = candidate.open("rb")
        except OSError:
            continue
        with stream:
            inode = os.fstat(stream.fileno()).st_ino
            if inode not in seen:
                seen.add(inode)
                yield stream


def recent(path: Path, query: LogQuery, lines: int, end: int | None = None) -> list[dict[str, Any]]:
    """The last ``lines`` entries that match, oldest first. ``end``: bytes of the newest file to look at, all when None."""
    return _last_matching(_all_lines(path, end), query, lines)[::-1]


def _all_lines(path: Path, end: int | None) -> Iterator[bytes]:
    for stream in open_newest_first(path):
        size = os.fstat(stream.fileno()).st_size
        yield from lines_backwards(stream, min(size, end) if end is not None else size)
        end = None


def _last_matching(lines: Iterable[bytes], query: LogQuery, wanted: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    scanned = 0
    for line in lines:
        scanned += len(line)
        if scanned > MAX_SCANNED:
            break
        if query.since is None and not query.may_match(line):
            continue
        entry = parse_line(line)
        if query.matches(entry):
            found.append(entry)
            if len(found) == wanted:
                break
        elif query.since is not None and (time := written_at(entry)) and time < query.since - DISORDER:
            break
    return found


def last_text_lines(path: Path, lines: int, end: int | None = None) -> list[str]:
    """The last lines of a plain log such as llama-server's, oldest first."""
    try:
        stream = path.open("rb")
    except OSError:
        return []
    with stream:
        size = os.fstat(stream.fileno()).st_size
        found: list[str] = []
        for line in lines_backwards(stream, size if end is None else min(size, end)):
            found.append(plain_text(line))
            if len(found) == lines:
                break
    return found[::-1]


def plain_text(line: bytes) -> str:
    return redact(COLOURS.sub(b"", line).decode("utf-8", "replace").rstrip("\r"))


class Follower:
    """New complete lines of a growing file, through rotation and truncation. Each call of ``read`` is short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: BinaryIO | None = None
        self._rest = b""
        self.start = self._open(at_end=True)

    def _open(self, *, at_end: bool = False) -> int:
        """Opens the file as it is now; the position reading starts from."""
        try:
            self._stream = self.path.open("rb")
        except OSError:
            return 0
        return self._stream.seek(0, os.SEEK_END if at_end else os.SEEK_SET)

    def read(self) -> list[bytes]:
        """At most one block of new lines; an unfinished line waits for its end."""
        if self._stream is None:
            self._open()
        stream = self._stream
        if stream is None:
            return []
        if os.fstat(stream.fileno()).st_size < stream.tell():  # truncated in place (copytruncate)
            stream.seek(0)
            self._rest = b""
        block = stream.read(BLOCK)
        if not block and self._was_replaced(stream):
            self.close()
            return []
        *complete, self._rest = (self._rest + block).split(b"\n")
        self._rest = self._rest[-MAX_LINE:]
        return [line for line in complete if line]

    def _was_replaced(self, stream: BinaryIO) -> bool:
        try:
            return os.stat(self.path).st_ino != os.fstat(stream.fileno()).st_ino
        except OSError:  # renamed, and the new one not made yet: nothing is lost by looking again later
            return False

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._rest = None, b""
