"""Telling other processes of this machine that the database has news for them, so that they need not wait for their next look.

A knock is an empty datagram on the loopback. One that is lost costs nothing but the time until the next look by the clock, and
whoever knocks without having news causes one look: so nothing is secret here and nothing is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import psutil
from django.conf import settings

logger = logging.getLogger(__name__)
SUPERVISOR, WEB = "supervisor", "web"


class Door(asyncio.DatagramProtocol):
    """Where this process can be knocked at, from ``open`` to ``close``. The port stands in a file of the run folder."""

    def __init__(self, name: str, heard: Callable[[], object]) -> None:
        self._heard = heard
        self._file = _folder() / f"{name}-{os.getpid()}"
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def open(cls, name: str, heard: Callable[[], object]) -> Door:
        """``heard`` is called in the running loop. Where there can be no door, it is never called, and the log says why."""
        door = cls(name, heard)
        try:
            loop = asyncio.get_running_loop()
            door._transport, _protocol = await loop.create_datagram_endpoint(
                lambda: door, local_addr=("127.0.0.1", 0), family=socket.AF_INET
            )
            _remove_stale(name)
            door._file.parent.mkdir(parents=True, exist_ok=True)
            door._file.write_text(str(door._transport.get_extra_info("sockname")[1]))
        except OSError as error:
            logger.warning("nobody can knock here, news are seen a moment later: %s", error)
        return door

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._heard()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)


def knock(name: str) -> None:
    """At every door of that name. Never blocks, never fails."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for file in _folder().glob(f"{name}-*"):
            with contextlib.suppress(OSError, ValueError, OverflowError):
                sender.sendto(b"", ("127.0.0.1", int(file.read_text())))


def _folder() -> Path:
    return Path(settings.RUN_DIR) / "doors"


def _remove_stale(name: str) -> None:
    """Of processes that were killed."""
    for file in _folder().glob(f"{name}-*"):
        pid = file.name.rpartition("-")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            file.unlink(missing_ok=True)
