"""Brings one file into its ``.partial``, however often the line breaks, and says what it hashes to.

What lies there already is not fetched again when the server still has the same file: the hash of the whole decides where the hub
told one, else the ETag, and a server that cannot go on in the middle begins anew. The file is as long and hashes as it should
before anybody renames it.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import re
import shutil
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import httpx

from models_app.downloads import addresses
from models_app.downloads.http import Source, opened, understood
from models_app.downloads.problems import Passing, Problem

T = TypeVar("T")
MIB = 1024 * 1024
CHUNK = 1 * MIB
DISK_RESERVE = 1024 * MIB  # kept free for logs, the database and others
DISK_LOOK = 64 * MIB  # written between two looks at the disk
WORTH_WHILE = 64 * 1024  # a try that brings less has failed
MAGIC = b"GGUF"
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class Timing:
    """Seconds, and how often a file is tried without one new byte."""

    stall: float = 60.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    attempts: int = 6


@dataclass(frozen=True)
class RemoteFile:
    """``size`` and ``sha256`` as the hub tells them; None where nobody does."""

    source: Source
    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass
class Watcher:
    """What the caller wants to hear of one file."""

    progress: Callable[[int], Awaitable[None]]  # bytes there
    trouble: Callable[[dict[str, Any]], Awaitable[None]]  # why it waits before it goes on
    stall: float = 60.0
    etag: str = ""  # of what lies there from before
    remember: Callable[[str, int | None], Awaitable[None]] | None = (
        None  # ETag and length, before the first byte is written
    )


@dataclass
class _Partial:
    """The file on the disk, and the hash of what is in it."""

    path: Path
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    looked: int = 0

    def read(self, stop: threading.Event) -> None:
        """``stop``: nobody waits for it any more."""
        self.digest, self.size = hashlib.sha256(), 0
        if self.path.exists():
            with self.path.open("rb") as stream:
                while not stop.is_set() and (chunk := stream.read(CHUNK)):
                    self.digest.update(chunk)
                    self.size += len(chunk)

    def restart(self) -> BinaryIO:
        self.digest, self.size = hashlib.sha256(), 0
        return self.path.open("wb")

    def go_on(self) -> BinaryIO:
        return self.path.open("ab")

    def write(self, stream: BinaryIO, data: bytes) -> None:
        if self.size - self.looked >= DISK_LOOK:
            self.looked = self.size
            check_room(self.path.parent, len(data))
        stream.write(data)
        self.digest.update(data)
        self.size += len(data)


def check_room(folder: Path, needed: int) -> None:
    """Raises Problem when ``needed`` bytes and the reserve do not fit."""
    free = shutil.disk_usage(folder).free
    if free < needed + DISK_RESERVE:
        raise Problem("disk_full", needed=needed + DISK_RESERVE, free=free)


async def fetch(
    client: httpx.AsyncClient, file: RemoteFile, path: Path, watcher: Watcher, timing: Timing | None = None
) -> str:
    """Until ``path`` holds the whole file, written to the disk; its SHA-256. Raises Problem."""
    timing = timing or Timing()
    watcher.stall = timing.stall
    partial = _Partial(path)
    try:
        await in_thread(partial.read)
        return await _persist(client, file, partial, watcher, timing)
    except OSError as error:
        raise as_problem(error, path) from error


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """For what takes as long as a large file is read. A thread cannot be cancelled, and the process would wait for it at its end:
    so ``work`` is told."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    except asyncio.CancelledError:
        stop.set()
        raise


def as_problem(error: OSError, path: Path) -> Problem:
    if error.errno in FULL:
        return Problem("disk_full", needed=DISK_RESERVE, free=shutil.disk_usage(path.parent).free)
    return Problem("folder", error=error.strerror or str(error))


async def _persist(
    client: httpx.AsyncClient, file: RemoteFile, partial: _Partial, watcher: Watcher, timing: Timing
) -> str:
    failures, spoiled = 0, False
    while True:
        before = partial.size
        try:
            if file.size is None or partial.size != file.size:
                await _attempt(client, file, partial, watcher)
            return await _whole(file, partial)
        except Passing as problem:
            failures = 1 if partial.size >= before + WORTH_WHILE else failures + 1
            # The hash of a file that was put together over several tries may be wrong for the joints: once more, in one go.
            if problem.code == "wrong_hash" and (spoiled or not before):
                raise Problem(problem.code, **problem.params) from None
            spoiled = spoiled or problem.code == "wrong_hash"
            if failures >= timing.attempts:
                raise Problem(problem.code, **problem.params) from None
            seconds = _pause(problem, failures, timing)
            why = problem.in_a_moment(seconds)
        await watcher.trouble(why)
        await asyncio.sleep(seconds)


def _pause(problem: Passing, failures: int, timing: Timing) -> float:
    if problem.wait is not None:
        return problem.wait
    steady = min(timing.longest_wait, timing.first_wait * 2.0 ** (failures - 1))
    return steady * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


async def _whole(file: RemoteFile, partial: _Partial) -> str:
    if file.size is not None and partial.size != file.size:
        raise Passing("cut", host=addresses.place_of(file.source.url).host, have=partial.size, size=file.size)
    found: str = partial.digest.hexdigest()
    if file.sha256 and found != file.sha256:
        await asyncio.to_thread(partial.path.unlink)
        partial.digest, partial.size = hashlib.sha256(), 0
        raise Passing("wrong_hash", file=file.name)
    await asyncio.to_thread(_to_disk, partial.path)
    return found


def _to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


async def _attempt(client: httpx.AsyncClient, file: RemoteFile, partial: _Partial, watcher: Watcher) -> None:
    """One request. What it brings stays, whatever happens."""
    known = watcher.etag if not watcher.etag.startswith("W/") else ""
    if partial.size and not known and not file.sha256:
        partial.size = 0  # nobody could say whether the rest belongs to it
    headers = {}
    if partial.size:
        headers = {"Range": f"bytes={partial.size}-", **({"If-Range": known} if known else {})}
    async with opened(client, file.source, headers, frozenset({200, 206, 416})) as response:
        host = response.request.headers.get("host", "")
        goes_on, length = _judge(response, file, partial, known, host)
        await _told(response, watcher, length)
        stream = await asyncio.to_thread(partial.go_on if goes_on else partial.restart)
        try:
            await _receive(response, file, partial, stream, watcher, host)
        finally:
            await asyncio.to_thread(stream.close)
    if length is not None and partial.size < length:
        raise Passing("cut", host=host, have=partial.size, size=length)


def _judge(
    response: httpx.Response, file: RemoteFile, partial: _Partial, known: str, host: str
) -> tuple[bool, int | None]:
    """Whether what comes belongs after what is there, and how long the whole file is. Raises Problem."""
    if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        partial.restart().close()  # there is less on the other side than here
        raise Passing("cut", host=host, have=0, size=file.size or "?")
    etag = response.headers.get("etag", "")
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        given = CONTENT_RANGE.match(response.headers.get("content-range", ""))
        length = int(given[3]) if given and given[3] != "*" else file.size
        if given is None or int(given[1]) != partial.size or (known and etag and etag != known):
            partial.restart().close()
            raise Passing("cut", host=host, have=0, size=file.size or "?")
        goes_on = True
    else:
        _check_kind(response, host)
        stated = response.headers.get("content-length", "")
        length = int(stated) if stated.isdecimal() else None
        goes_on = False
    if length is not None and file.size is not None and length != file.size:
        raise Problem("wrong_length", host=host, offered=length, size=file.size)
    length = file.size if length is None else length
    check_room(partial.path.parent, (length or 0) - (partial.size if goes_on else 0))
    return goes_on, length


def _check_kind(response: httpx.Response, host: str) -> None:
    if (
        response.headers.get("content-type", "")
        .lower()
        .startswith(("text/html", "application/json", "application/xml"))
    ):
        raise Problem("not_a_model", host=host)


async def _told(response: httpx.Response, watcher: Watcher, length: int | None) -> None:
    watcher.etag = response.headers.get("etag", "")[:200]
    if watcher.remember is not None:
        await watcher.remember(watcher.etag, length)


async def _receive(
    response: httpx.Response, file: RemoteFile, partial: _Partial, stream: BinaryIO, watcher: Watcher, host: str
) -> None:
    """What came before the line broke is kept too."""
    waiting = bytearray()
    try:
        with understood(watcher.stall, host):
            async for chunk in response.aiter_raw():
                waiting += chunk
                if len(waiting) >= CHUNK:
                    await _keep(waiting, file, partial, stream, host)
                    await watcher.progress(partial.size)
    finally:
        await _keep(waiting, file, partial, stream, host)
        await watcher.progress(partial.size)


async def _keep(data: bytearray, file: RemoteFile, partial: _Partial, stream: BinaryIO, host: str) -> None:
    if not partial.size and len(data) >= len(MAGIC) and not data.startswith(MAGIC):
        raise Problem("not_a_model", host=host)
    if file.size is not None and partial.size + len(data) > file.size:
        raise Problem("wrong_length", host=host, offered=f"> {file.size}", size=file.size)
    if data:
        await asyncio.to_thread(partial.write, stream, bytes(data))
        data.clear()
