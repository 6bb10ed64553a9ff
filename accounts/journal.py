"""What answers have cost so far, noted where the death of their process does not lose it.

A web process knows in memory what it delivered; the ledger hears of it some milliseconds after an answer has ended. ``kill -9``
in between would make what was delivered free. So each process keeps a file of its own, mapped into memory: a note costs
microseconds and no system call, and what stands there is the kernel's as soon as it is written. Whoever finds the file of a
process that is gone settles what it says (``quota.release_dead_holds``). It does not survive the end of the machine itself.

The file is a row of slots of ``SLOT_BYTES``: how long the note is (0: the slot is free), how many tokens of the answer were
delivered, the note. A note is complete before its length is written, so that half a one is none. It has no word of a prompt or
an answer. Its name says whose it is and which database the numbers of wallets are of.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import struct
from collections import deque
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from django.conf import settings

from llmplatform.lib import process_identity

logger = logging.getLogger(__name__)

SLOTS = 4096  # answers under way or not yet settled; whatever is more is not noted
SLOT_BYTES = 1024
HEAD = struct.Struct("=II")
LENGTH, DELIVERED = struct.Struct("=I"), struct.Struct("=I")
STRANGER_SECONDS = 86400.0  # so long, what a machine nobody knows left behind is left alone: its holds too


class Note(NamedTuple):
    content: list[Any]
    delivered: int


class Journal:
    """``put`` and ``count`` are for one thread, ``free`` for any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: mmap.mmap | None = None
        self._free: deque[int] = deque()

    def open(self) -> None:
        """Raises OSError. The room is taken now: a full disk must not be found out by writing to the map."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, SLOTS * SLOT_BYTES)
            else:
                os.write(descriptor, bytes(SLOTS * SLOT_BYTES))
            self._map = mmap.mmap(descriptor, SLOTS * SLOT_BYTES)
        finally:
            os.close(descriptor)
        self._free.extend(range(SLOTS))

    def put(self, content: list[Any], delivered: int = 0) -> int | None:
        """The slot of the new note; None when there is no room for it."""
        data = json.dumps(content, ensure_ascii=False, default=str).encode("utf-8", "replace")
        if self._map is None or not self._free or len(data) > SLOT_BYTES - HEAD.size:
            return None
        slot = self._free.popleft()
        at = slot * SLOT_BYTES
        self._map[at + HEAD.size : at + HEAD.size + len(data)] = data
        HEAD.pack_into(self._map, at, 0, delivered)
        LENGTH.pack_into(self._map, at, len(data))
        return slot

    def replace(self, slot: int | None, content: list[Any], delivered: int = 0) -> int | None:
        """The slot of what is known now: the new note's, or still the old one when there is no room."""
        new = self.put(content, delivered)
        if new is None:
            return slot
        self.free(slot)
        return new

    def count(self, slot: int | None, delivered: int) -> None:
        if slot is not None and self._map is not None:
            DELIVERED.pack_into(self._map, slot * SLOT_BYTES + LENGTH.size, delivered)

    def free(self, slot: int | None) -> None:
        """The ledger has it, or a later note does."""
        if slot is not None and self._map is not None:
            LENGTH.pack_into(self._map, slot * SLOT_BYTES, 0)
            self._free.append(slot)

    def close(self) -> None:
        """At the end of the process. A file that still has notes is left for whoever looks for it."""
        if self._map is not None and len(self._free) == SLOTS:
            self._map.close()
            self._map = None
            self.path.unlink(missing_ok=True)


@cache
def own() -> Journal:
    """This process's. Without one (no room, no right to write) the service goes on, and says so."""
    journal = Journal(_folder() / f"{quote(process_identity.own_identity(), safe='')}{_suffix()}")
    try:
        journal.open()
    except OSError:
        logger.warning("there is no journal: what is delivered when this process is killed will be free", exc_info=True)
    return journal


def left_behind() -> Iterator[tuple[Path, list[Note]]]:
    """The journals of processes that are gone. Who has settled what stands in one deletes it."""
    for path in sorted(_folder().glob(f"*{_suffix()}")):
        with contextlib.suppress(FileNotFoundError):  # somebody else has just dealt with it
            if _is_left_behind(path):
                yield path, notes_in(path)


def _is_left_behind(path: Path) -> bool:
    owner = unquote(path.name.removesuffix(_suffix()))
    if process_identity.is_from_here(owner):
        return process_identity.is_gone(owner)
    return time() - path.stat().st_mtime > STRANGER_SECONDS


def notes_in(path: Path) -> list[Note]:
    data, notes = path.read_bytes(), []
    for at in range(0, len(data) - HEAD.size, SLOT_BYTES):
        length, delivered = HEAD.unpack_from(data, at)
        if length:
            try:
                notes.append(Note(json.loads(data[at + HEAD.size : at + HEAD.size + length]), delivered))
            except ValueError:
                logger.error("a journal has a note that cannot be read")
    return notes


def _folder() -> Path:
    return Path(settings.RUN_DIR) / "journals"


@cache
def _suffix() -> str:
    database = settings.DATABASES["default"]
    name = "/".join(str(database.get(part, "")) for part in ("HOST", "PORT", "NAME"))
    return f".{sha256(name.encode()).hexdigest()[:12]}.journal"
