"""The web server process: Daphne with limits on how long it may take to end."""

from __future__ import annotations

# Daphne first: importing it chooses Twisted's asyncio reactor.
import daphne.server  # isort: skip
from daphne.http_protocol import HTTPFactory, WebRequest  # isort: skip

import asyncio
import logging
import os
import threading
from typing import Any

from django.conf import settings
from twisted.internet import defer, reactor

from llmplatform.lib import parent_watch

logger = logging.getLogger(__name__)
# From the wish to end to the end, in seconds: first requests and sockets are cancelled and may tidy up, then we go regardless.
APPLICATIONS_MAY_TAKE = 5.0
END_AT_THE_LATEST = 7.0
# Understood by readers of either error format.
TOO_LARGE = (
    b'{"error": {"code": "request_too_large", "type": "invalid_request_error", "param": null, "details": {}, '
    b'"message": "The body is too large."}}'
)
TOO_LARGE_HEAD = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(TOO_LARGE)
)
READ_AND_DROPPED = 4  # times the largest body


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
            self.channel.transport.write(TOO_LARGE_HEAD + TOO_LARGE)
            self.channel.loseConnection()
        elif not self._too_large:
            super().handleContentChunk(data)

    def process(self) -> Any:
        if not self._too_large:
            return super().process()
        self.setResponseCode(413)
        self.setHeader(b"content-type", b"application/json")
        self.setHeader(b"content-length", b"%d" % len(TOO_LARGE))
        self.write(TOO_LARGE)
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
        """Cancel what is under way and wait for it, but not for ever.

        Daphne's own version stops at the first connection without a request, and waits without limit.
        """
        _end_at_the_latest()
        running = [
            details["application_instance"]
            for details in self.connections.values()
            if details.get("application_instance") and not details["application_instance"].done()
        ]
        for application in running:
            application.cancel()
        if not running:
            return None
        waiting = asyncio.ensure_future(asyncio.wait(running, timeout=APPLICATIONS_MAY_TAKE))
        return defer.Deferred.fromFuture(waiting)

    def listen_error(self, failure: Any) -> None:
        """The port was taken between serve's check and now: end, and serve tries again."""
        logger.error("the web server cannot listen: %s", failure.getErrorMessage())
        os._exit(1)


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
