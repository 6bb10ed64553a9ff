"""How slow the other end of a connection may be.

Twisted by itself waits for ever for a request that comes byte by byte, and keeps in memory whatever a client does not read. Here
each side of a connection has to move 64 KB, or all that is left, in ``CLIENT_TIMEOUT_SECONDS``, and whoever answers is held
back meanwhile. So a client that does not read costs little memory and, after that time, no slot of an engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from twisted.web.http import HTTPChannel

BLOCK = 64 * 1024  # as much as Twisted lets wait before it says so


class PacedChannel(HTTPChannel):
    """One connection, whose other end has to keep up."""

    def __init__(self) -> None:
        super().__init__()
        self._due = 0  # bytes until the time for receiving begins anew
        self._room = asyncio.Event()  # the client has taken what was sent
        self._room.set()
        self._leaving: Any = None  # the call that ends it

    # -- receiving -------------------------------------------------------------------------------------------------------
    def dataReceived(self, data: bytes) -> None:
        if _was_reset(self.transport.socket):
            # uvloop has told Twisted of the data, and then ceases to look at the connection without telling it.
            self.forceAbortClient()
            return
        if self._due <= 0:  # a request begins, or so much of it has come again
            self._due = BLOCK
            super().resetTimeout()
        self._due -= len(data)
        super().dataReceived(data)

    def resetTimeout(self) -> None:
        """Twisted would with every byte."""

    def requestDone(self, request: Any) -> None:
        self._due = 0
        super().requestDone(request)

    # -- sending ---------------------------------------------------------------------------------------------------------
    @property
    def is_full(self) -> bool:
        return not self._room.is_set()

    async def room(self) -> None:
        """Comes back when what was sent before is taken, or will never be."""
        await self._room.wait()

    def pauseProducing(self) -> None:
        """More than a block waits to be sent. The transport says so with every write."""
        super().pauseProducing()
        self._room.clear()
        self._begin_leaving()

    def resumeProducing(self) -> None:
        """Nothing does."""
        self._stay()
        self._room.set()
        super().resumeProducing()

    def stopProducing(self) -> None:
        self._stay()
        self._room.set()
        super().stopProducing()

    def loseConnection(self) -> Any:
        """When all that waits is sent. From now on nobody says whether it is."""
        self._begin_leaving()
        self._room.set()
        return super().loseConnection()

    def connectionLost(self, reason: Any) -> None:
        self._stay()
        self._room.set()
        super().connectionLost(reason)

    def _begin_leaving(self) -> None:
        if self._leaving is None:
            self._leaving = self.callLater(settings.CLIENT_TIMEOUT_SECONDS, self._leave)

    def _leave(self) -> None:
        self._leaving = None
        self.forceAbortClient()

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None


def _was_reset(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def in_blocks(message: Any) -> Iterator[Any]:
    """A message of ASGI's ``send`` as several, none of which has more than a block, so that one after the other can be taken."""
    body = message.get("body", b"")
    last = max(0, (len(body) - 1) // BLOCK) * BLOCK
    for begin in range(0, last, BLOCK):
        yield {**message, "body": body[begin : begin + BLOCK], "more_body": True}
    yield {**message, "body": body[last:]} if last else message


def keep_little_in_the_system(listening: socket.socket) -> None:
    """Of what is to be sent on its connections. Else some megabytes of an answer lie there, and whether somebody reads slowly or
    not at all is seen only after minutes."""
    with contextlib.suppress(AttributeError, OSError):  # only Linux and macOS know it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, BLOCK)
