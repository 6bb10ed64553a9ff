"""Who really calls, when reverse proxies stand in front: decided once, before any part of the service sees the request.

``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed from the addresses in ``TRUSTED_PROXIES`` only, and go into the
scope: Django's ``REMOTE_ADDR``, the gateway and the websockets then all see the same caller. Every such header is taken away,
whoever sent it, so that nothing further in can believe one. ``X-Forwarded-Host`` is never believed: a proxy passes ``Host``
on, or ``PUBLIC_URL`` says it.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

from llmplatform.lib.configuration import ConfigurationError
from llmplatform.lib.early_messages import translate as _

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Header = tuple[bytes, bytes]

# In the scope of a request that came through a proxy nobody has named: its address proves nothing about the caller.
UNKNOWN_PROXY = "llmplatform.unknown_proxy"
NOWHERE = "0.0.0.0"  # noqa: S104 - for a connection that has no address; never bound
MOST_HOPS = 20  # from the right; nobody has more proxies of their own
LONGEST_HOP = 64  # an IPv6 address with zone, brackets and port has fewer characters
WITH_PORT = re.compile(r"^(?:\[(?P<six>[^\]]*)\]|(?P<four>[0-9.]+))(?::\d{1,5})?$")

logger = logging.getLogger(__name__)


def parse_networks(name: str, texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and CIDR networks of a setting. Raises ConfigurationError naming the first that is none."""
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError as error:
            raise ConfigurationError(
                _("%(name)s=%(value)s: must be addresses or networks such as 127.0.0.1 or 10.0.0.0/8, with commas")
                % {"name": name, "value": text}
            ) from error
    return tuple(found)


def parse_address(text: str) -> Address | None:
    """An address as proxies write it: with a port, in brackets, with a zone, IPv4 as IPv6. None for what is none."""
    text = text.strip()
    if len(text) > LONGEST_HOP:
        return None
    if match := WITH_PORT.match(text):
        text = match["six"] or match["four"] or ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class BehindProxies:
    """The application as it is without proxies in front."""

    def __init__(self, application: App, trusted: tuple[Network, ...]) -> None:
        self._application = application
        self._trusted = trusted
        self._peer = lru_cache(maxsize=1024)(self._look_at_peer)
        self._told: set[str] = set()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        await self._application(self.seen(scope) if "headers" in scope else scope, receive, send)

    def seen(self, scope: Scope) -> Scope:
        headers: list[Header] = []
        forwarding: list[Header] = []
        for header in scope["headers"]:
            (forwarding if _tells_of_proxies(header[0]) else headers).append(header)
        client = scope.get("client") or (NOWHERE, 0)
        peer, trusted = self._peer(client[0])
        # A path prefix would be believed from a header as well (Daphne-Root-Path).
        seen = {**scope, "headers": headers, "client": (peer, client[1]), "root_path": ""}
        if forwarding and trusted:
            self._believe(seen, forwarding)
        elif forwarding:
            seen[UNKNOWN_PROXY] = True
            self._tell_once(peer)
        return seen

    def _look_at_peer(self, text: str) -> tuple[str, bool]:
        address = parse_address(text)
        return (NOWHERE, False) if address is None else (str(address), self._is_trusted(address))

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _believe(self, scope: Scope, forwarding: list[Header]) -> None:
        hops = b",".join(value for name, value in forwarding if name == b"x-forwarded-for")
        if caller := self._caller(hops):
            scope["client"] = (caller, 0)
        schemes = [value for name, value in forwarding if name == b"x-forwarded-proto"]
        scheme = schemes[-1].rpartition(b",")[2].strip().lower() if schemes else b""
        if scheme in {b"http", b"https"}:
            is_socket = scope["type"] == "websocket"
            scope["scheme"] = scheme.decode().replace("http", "ws") if is_socket else scheme.decode()

    def _caller(self, hops: bytes) -> str:
        """The rightmost address that is none of our proxies; what stands left of it, its sender may have made up. Empty: the
        peer itself."""
        nearest = ""
        for hop in reversed(hops.rsplit(b",", MOST_HOPS)[-MOST_HOPS:]):
            address = parse_address(hop.decode("latin-1"))
            if address is None:
                break
            nearest = str(address)
            if not self._is_trusted(address):
                break
        return nearest

    def _tell_once(self, peer: str) -> None:
        """Everybody behind a proxy that is not named counts as one address; whoever set it up should hear of it."""
        if peer not in self._told and ipaddress.ip_address(peer).is_private and len(self._told) < 100:
            self._told.add(peer)
            logger.warning("%s forwards requests, but is not in TRUSTED_PROXIES: its callers all count as one", peer)


def _tells_of_proxies(name: bytes) -> bool:
    return name.startswith(b"x-forwarded-") or name in {b"forwarded", b"x-real-ip", b"daphne-root-path"}
