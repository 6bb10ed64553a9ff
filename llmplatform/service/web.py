"""The web server process: Daphne with limits on how long it may take to end."""

from __future__ import annotations

import asyncio
import contextlib

with contextlib.suppress(ImportError):  # there is none for Windows; everything runs without it, a little slower
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

# Daphne before anything of Twisted: importing it makes the event loop and chooses Twisted's reactor on it.
import daphne.server  # isort: skip
from daphne.http_protocol import HTTPFactory, WebRequest  # isort: skip

import logging
import os
import threading
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from twisted.internet import defer, reactor

from gateway import errors, upstream
from gateway.app import protocol_of
from llmplatform.lib import parent_watch

logger = logging.getLogger(__name__)
# From the wish to end to the end, in seconds. Requests and sockets are cancelled and may tidy up; then what works in the
# background; then we go regardless, before serve would kill us.
APPLICATIONS_MAY_TAKE = 2.5
BACKGROUND_MAY_TAKE = 2.0
END_AT_THE_LATEST = 8.0
TOO_LARGE_HEAD = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
READ_AND_DROPPED = 4  # times the largest body


def _too_large(path: bytes) -> bytes:
    """The answer's body, in the format of whoever is asked."""
    error = errors.too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20)
    return errors.as_body(error, protocol_of(path.partition(b"?")[0].decode("latin-1")))


class Request(WebRequest):
    """Bodies come here before anybody has looked at them: what is larger than any endpoint takes is not kept.

    When it declares its length, a little more than that is read and dropped, since most clients listen for the answer only
    when they have sent everything; beyond that the connection ends.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Django reads forms itself. Twisted's parser would read them first, and with every body takes a tenth of the time
        # of a short request to find out that it is none.
        super().__init__(*args, parsePOSTFormSubmission=False, **kwargs)
        self._received = 0
        self._too_large = False

    def gotLength(self, length: int | None) -> None:
        self._too_large = length is not None and length > settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        super().gotLength(0 if self._too_large else length)

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if self._too_large and self._received > limit * READ_AND_DROPPED:
            self.channel.forceAbortClient()
        elif not self._too_large and self._received > limit:
            self._too_large = True
            # Twisted tells a request its address only after the body.
            body = _too_large(getattr(self.channel, "_path", b""))
            self.channel.transport.write(TOO_LARGE_HEAD % len(body) + body)
            self.channel.loseConnection()
        elif not self._too_large:
            super().handleContentChunk(data)

    def process(self) -> Any:
        if not self._too_large:
            return super().process()
        self.setResponseCode(413)
        self.setHeader(b"content-type", b"application/json")
        body = _too_large(self.uri)
        self.setHeader(b"content-length", b"%d" % len(body))
        self.write(body)
        self.finish()
        return None


class Factory(HTTPFactory):
    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol

    def log(self, request: Any) -> None:
        """No access log: composing its lines costs, and usage records tell more."""


class WebServer(daphne.server.Server):
    def kill_all_applications(self) -> Any:
        """What Twisted waits for before it ends. Daphne's own version stops at the first connection without a request, and
        waits without limit."""
        _end_at_the_latest()
        return defer.Deferred.fromFuture(asyncio.ensure_future(self._end_everything()))

    async def _end_everything(self) -> None:
        running = {
            details["application_instance"]
            for details in self.connections.values()
            if details.get("application_instance") and not details["application_instance"].done()
        }
        await _cancelled(running, APPLICATIONS_MAY_TAKE)
        # Answers that go on without a socket, caches that refresh themselves: as at the end of asyncio.run().
        await _cancelled(asyncio.all_tasks() - {asyncio.current_task()}, BACKGROUND_MAY_TAKE)
        await upstream.close()

    def listen_error(self, failure: Any) -> None:
        """The port was taken between serve's check and now: end, and serve tries again."""
        logger.error("the web server cannot listen: %s", failure.getErrorMessage())
        os._exit(1)


async def _cancelled(tasks: Iterable[asyncio.Task[Any] | None], seconds: float) -> None:
    pending = {task for task in tasks if task is not None}
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=seconds)


def _end_at_the_latest() -> None:
    timer = threading.Timer(END_AT_THE_LATEST, lambda: os._exit(0))
    timer.daemon = True
    timer.start()


def _stop_server() -> None:
    logger.warning("serve has ended; the web server ends too")
    _end_at_the_latest()
    reactor.callFromThread(reactor.stop)


def endpoint(host: str, port: int, certificate: str = "", key: str = "") -> str:
    """Twisted's description of where to listen."""
    interface = host.strip("[]").replace(":", r"\:")
    if certificate:
        files = f"certKey={_escaped(certificate)}:privateKey={_escaped(key or certificate)}"
        return f"ssl:port={port}:interface={interface}:{files}"
    return f"tcp:port={port}:interface={interface}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace(":", r"\:").replace("=", r"\=")


def run(application: Any, endpoint_description: str) -> None:
    """Serve until SIGTERM, Ctrl-C, or the end of the parent process."""
    daphne.server.HTTPFactory = Factory  # it takes none as an argument
    server = WebServer(
        application=application,
        endpoints=[endpoint_description],
        application_close_timeout=5,
        server_name="llm-platform",
        verbosity=1,
    )
    parent_watch.watch(_stop_server)
    server.run()
