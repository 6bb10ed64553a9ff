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

import gc
import logging
import os
import threading
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from twisted.internet import defer, reactor
from twisted.web.http import _GenericHTTPChannelProtocol

from accounts.models import new_request_id
from gateway import counting, ending, errors, upstream
from gateway.app import PATHS, protocol_of
from gateway.cors import CrossOrigin
from llmplatform.lib import parent_watch
from llmplatform.service.pace import PacedChannel, in_blocks, keep_little_in_the_system

logger = logging.getLogger(__name__)
# From the wish to end to the end, in seconds. Requests and sockets are cancelled and may tidy up; then what works in the
# background; then engines may say what the answers cost that were cut; then we go regardless, before serve would kill us.
APPLICATIONS_MAY_TAKE = 2.5
BACKGROUND_MAY_TAKE = 2.0
COUNTING_MAY_TAKE = 1.0
END_AT_THE_LATEST = 8.0
# So many connections wait to be taken, if the system allows as many. With Twisted's own 50, some of a thousand that came at once
# were reset.
BACKLOG = 4096
TOO_LARGE_HEAD = (
    b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"X-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
)
READ_AND_DROPPED = 4  # times the largest body
# The head of a request: what browsers and official clients send has about 2 KB in 20 headers.
LONGEST_HEADER = 16 * 1024
LARGEST_HEAD = 96 * 1024
MOST_HEADERS = 200
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"X-Request-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
)
# Python looks for cycles among all objects there are when so many are new. With its own figures (700, 10, 10), and all that is
# loaded among them, that took a fifth of the time of short requests.
COLLECT_AFTER = (20_000, 20, 20)
CREDENTIALS = (b"authorization", b"x-api-key")
NO_CREDENTIAL = b"too long"
LINGER_SECONDS = 1


def _too_large(path: bytes) -> bytes:
    return _error_body(errors.too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20), path)


def _error_body(error: errors.GatewayError, path: bytes) -> bytes:
    """In the format of whoever is asked."""
    return errors.as_body(error, protocol_of(path.partition(b"?")[0].decode("latin-1")))


def _cross_origin(path: bytes, origin: bytes | None) -> dict[str, str]:
    """What a page of another site needs, to see the refusal."""
    origins = settings.CORS_ALLOWED_ORIGINS
    if not origins or origin is None or not PATHS.match(path.partition(b"?")[0].decode("latin-1")):
        return {}
    return CrossOrigin(None, origins).headers_for(origin.decode("latin-1"))


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
            self.channel.transport.write(TOO_LARGE_HEAD % (new_request_id().encode(), len(body), body))
            self.channel.loseConnection()
        elif not self._too_large:
            super().handleContentChunk(data)

    def process(self) -> Any:
        if not self._too_large:
            return super().process()
        self.setResponseCode(413)
        self.setHeader(b"content-type", b"application/json")
        body = _too_large(self.uri)
        self.setHeader(b"x-request-id", new_request_id())
        self.setHeader(b"content-length", b"%d" % len(body))
        for name, value in _cross_origin(self.uri, self.getHeader(b"origin")).items():
            self.setHeader(name, value)
        self.write(body)
        self.finish()
        return None


class Channel(PacedChannel):
    """One connection. A head that is too large ends it before anything of the service has seen the request.

    A credential that is too long is a wrong one all the same, and is refused as such by whoever is asked.
    """

    MAX_LENGTH = totalHeadersSize = LARGEST_HEAD
    maxHeaders = MOST_HEADERS
    _over = False

    def dataReceived(self, data: bytes) -> None:
        if not self._over:
            super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if self._over:
            return
        if self._receivedHeaderSize + len(line) > LARGEST_HEAD:
            self._refuse_head()
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse_head()

    def headerReceived(self, line: bytes) -> bool:
        name, colon, _value = line.partition(b":")
        is_long = len(line) > LONGEST_HEADER
        if is_long and name.lower() in CREDENTIALS:
            line, is_long = name + colon + NO_CREDENTIAL, False
        if is_long or self._receivedHeaderCount >= MOST_HEADERS:
            self._refuse_head()
        return not self._over and bool(super().headerReceived(line))

    def loseConnection(self) -> Any:
        """Twisted would go on with what it has read already, after refusing its beginning."""
        self._over = True
        return super().loseConnection()

    def _refuse_head(self) -> None:
        if self._over:
            return
        self._over = True
        body = _error_body(errors.head_too_large(), getattr(self, "_path", b""))
        self.transport.write(HEAD_TOO_LARGE % (new_request_id().encode(), len(body), body))
        # Closed at once, a client that is still sending would see a broken connection and no answer.
        self.setTimeout(LINGER_SECONDS)


class Factory(HTTPFactory):
    protocol = staticmethod(lambda: _GenericHTTPChannelProtocol(Channel()))  # as Twisted's own, but for the class

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.timeOut = settings.CLIENT_TIMEOUT_SECONDS

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol

    def log(self, request: Any) -> None:
        """No access log: composing its lines costs, and usage records tell more."""


class WebServer(daphne.server.Server):
    async def handle_reply(self, protocol: Any, message: Any) -> None:
        """What applications send goes here. Waits until the client has taken what was sent before."""
        channel = getattr(protocol, "channel", None)
        if not isinstance(channel, PacedChannel):  # a websocket, which is pinged instead; or nobody is there any more
            await super().handle_reply(protocol, message)
            return
        for part in in_blocks(message):
            if channel.is_full:
                await channel.room()
            await super().handle_reply(protocol, part)

    def listen_success(self, port: Any) -> None:
        keep_little_in_the_system(port.socket)
        super().listen_success(port)

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
        ending.begin()
        await _cancelled(running, APPLICATIONS_MAY_TAKE)
        # Answers that go on without a socket, caches that refresh themselves: as at the end of asyncio.run().
        await _cancelled(asyncio.all_tasks() - {asyncio.current_task()} - counting.tasks(), BACKGROUND_MAY_TAKE)
        if asking := counting.tasks():
            await asyncio.wait(asking, timeout=COUNTING_MAY_TAKE)
            await _cancelled(counting.tasks(), COUNTING_MAY_TAKE)
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


def _keep_what_is_loaded() -> None:
    """It is never garbage, and not looked at for cycles any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def endpoint(host: str, port: int, certificate: str = "", key: str = "") -> str:
    """Twisted's description of where to listen."""
    interface = host.strip("[]").replace(":", r"\:")
    if certificate:
        files = f"certKey={_escaped(certificate)}:privateKey={_escaped(key or certificate)}"
        return f"ssl:port={port}:interface={interface}:backlog={BACKLOG}:{files}"
    return f"tcp:port={port}:interface={interface}:backlog={BACKLOG}"


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
    _keep_what_is_loaded()
    server.run()
