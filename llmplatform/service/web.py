"""The web server process: Daphne with limits on how long it may take to end."""

from __future__ import annotations

# Daphne first: importing it chooses Twisted's asyncio reactor.
from daphne.server import Server  # isort: skip

import asyncio
import logging
import os
import threading
from typing import Any

from twisted.internet import defer, reactor

from llmplatform.lib import parent_watch

logger = logging.getLogger(__name__)
# From the wish to end to the end, in seconds: first requests and sockets are cancelled and may tidy up, then we go regardless.
APPLICATIONS_MAY_TAKE = 5.0
END_AT_THE_LATEST = 7.0


class WebServer(Server):
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
    server = WebServer(
        application=application,
        endpoints=[endpoint_description],
        application_close_timeout=5,
        server_name="llm-platform",
        verbosity=1,
    )
    parent_watch.watch(_stop_server)
    server.run()
