"""What a model is and needs before it is fetched: of its file only the header comes, the first few megabytes.

The child that looks into every file looks into what has come, and knows how long the whole is. Where that is cut within the
header the look fails, and is repeated with more.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

import httpx
from asgiref.sync import async_to_sync
from django.conf import settings

from models_app import inspection
from models_app.downloads import addresses, choosing
from models_app.downloads.fetch import CONTENT_RANGE, MAGIC, MIB, RemoteFile
from models_app.downloads.http import opened, understood
from models_app.downloads.problems import Problem
from models_app.downloads.transport import new_client
from models_app.gguf import GgufError, GgufFacts

logger = logging.getLogger(__name__)
# Bytes after which it is looked whether that is all of it. A vocabulary of 150,000 words takes about 6 MB.
LOOKS = tuple(count * MIB for count in (1, 2, 4, 8, 16, 32, 64))
MOST_PARTS = 64
AT_ONCE = 8  # parts
LONGEST_FILE = 1 << 50  # bytes; who tells of more tells nonsense
SECONDS = 12.0  # while a person waits for a page
STALL_SECONDS = 8.0
REMEMBERED = 256
HOLDS = 3600.0

_known: OrderedDict[str, tuple[float, GgufFacts]] = OrderedDict()
_lock = threading.Lock()
_turn = threading.BoundedSemaphore(2)  # however many people click however often


def known(what: str) -> GgufFacts | None:
    """What ``facts_of`` found under that name within the last hour, in this process."""
    with _lock:
        at, facts = _known.get(what, (0.0, None))
    return facts if facts is not None and time.monotonic() - at < HOLDS else None


def facts_of(what: str, files: Sequence[RemoteFile]) -> GgufFacts | None:
    """Of the model in ``files`` (all its parts, in order), asked for while somebody waits; None when that could not be found out
    in some seconds. ``what`` names it for ``known``. Raises GgufError when it is no model."""
    if (facts := known(what)) is not None:
        return facts
    if not _turn.acquire(timeout=SECONDS):
        return None
    try:
        if (facts := known(what)) is not None:  # somebody else has just looked
            return facts
        facts = async_to_sync(_in_time)(files)
    except (Problem, OSError, TimeoutError) as error:
        logger.info("the header of %s could not be looked at: %r", what, error)
        return None
    finally:
        _turn.release()
    if facts is not None:
        with _lock:
            _known[what] = time.monotonic(), facts
            while len(_known) > REMEMBERED:
                _known.popitem(last=False)
    return facts


async def _in_time(files: Sequence[RemoteFile]) -> GgufFacts | None:
    async with new_client(STALL_SECONDS) as client, asyncio.timeout(SECONDS):
        return await look_into(client, files)


async def look_into(client: httpx.AsyncClient, files: Sequence[RemoteFile]) -> GgufFacts | None:
    """None when the header is longer than any that is known. Raises Problem, GgufError, OSError."""
    if len(files) > MOST_PARTS:
        return None
    with tempfile.TemporaryDirectory(dir=_folder()) as name:
        folder, turn = Path(name), asyncio.Semaphore(AT_ONCE)

        async def rest(file: RemoteFile) -> int:
            """Of the parts after the first: names of tensors, no vocabulary. How long the part is."""
            async with turn, aclosing(_growing(client, file, folder)) as growing:
                return (await anext(growing))[1]

        others = await asyncio.gather(*map(rest, files[1:]))
        async with aclosing(_growing(client, files[0], folder)) as growing:
            async for path, size, is_whole in growing:
                try:
                    return await asyncio.to_thread(inspection.look, path, (size, *others))
                except GgufError:
                    if is_whole:
                        raise
    return None


def _folder() -> Path:
    """Of the service, and without what a process left that was killed."""
    folder: Path = settings.RUN_DIR / "headers"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > HOLDS:
                shutil.rmtree(left, ignore_errors=True)
    return folder


async def _growing(
    client: httpx.AsyncClient, file: RemoteFile, folder: Path
) -> AsyncGenerator[tuple[Path, int, bool], None]:
    """The beginning of the file, each time there is much more of it; how long the whole is, and whether nothing is missing."""
    path, host = folder / choosing.base(file.name), addresses.place_of(file.source.url).host
    headers, there, due = {"Range": f"bytes=0-{LOOKS[-1] - 1}"}, 0, LOOKS[0]
    async with opened(client, file.source, headers, frozenset({200, 206})) as response:
        size = file.size or _length(response)
        if size is None or size > LONGEST_FILE:
            raise Problem("bad_answer", host=host)
        with path.open("xb") as stream:
            chunks = response.aiter_raw()
            while True:
                with understood(STALL_SECONDS, host):
                    chunk = await anext(chunks, b"")
                stream.write(chunk)
                there += len(chunk)
                if there >= len(MAGIC) and there == len(chunk) and not chunk.startswith(MAGIC):
                    raise Problem("not_a_model", host=host)
                if there >= due or not chunk:
                    stream.flush()
                    yield path, size, there >= size
                    if not chunk or there >= LOOKS[-1]:
                        return
                    due = next(one for one in LOOKS if one > there)


def _length(response: httpx.Response) -> int | None:
    """Of the whole file."""
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        given = CONTENT_RANGE.match(response.headers.get("content-range", ""))
        return int(given[3]) if given and given[3] != "*" else None
    stated = response.headers.get("content-length", "")
    return int(stated) if stated.isdecimal() else None
