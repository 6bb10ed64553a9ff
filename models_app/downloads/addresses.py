"""Where models may be fetched from: hosts by name, and what their names lead to.

The names of the hubs and those in ``MODEL_HOSTS`` are allowed, by https, and only where they lead to public addresses. An entry
written as a whole address (``http://127.0.0.1:9000``) is the administrator's own word: just that scheme, host and port, wherever
it leads. The same holds for ``HF_ENDPOINT`` and ``MODELSCOPE_ENDPOINT``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from llmplatform.lib.networks import IpAddress, plain
from models_app.downloads.problems import Passing, Problem

# With everything below them: the hubs answer with redirects to hosts of their own that hold the files.
HUB_HOSTS = ("huggingface.co", "hf.co", "modelscope.cn", "modelscope.ai")
PORTS = {"https": 443, "http": 80}
NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Place:
    """One origin. ``own`` is one that the administrator wrote down as a whole address."""

    scheme: str
    host: str
    port: int
    own: bool = False


def place_of(url: str) -> Place:
    """Raises Problem for what is no plain http(s) address."""
    if not url.isascii() or any(character <= " " or character in '\\"<>^`{|}\x7f' for character in url):
        raise Problem("url_not_understood", url=url[:200])
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Problem("url_not_understood", url=url[:200]) from None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in PORTS or not host:
        raise Problem("url_not_understood", url=url[:200])
    if "@" in parts.netloc:
        raise Problem("url_with_user")
    return Place(parts.scheme, host, port or PORTS[parts.scheme])


def check(url: str) -> Place:
    """The place a request to ``url`` goes to. Raises Problem when it may not."""
    place = place_of(url)
    for own in _own_places():
        if (place.scheme, place.host, place.port) == (own.scheme, own.host, own.port):
            return Place(place.scheme, place.host, place.port, own=True)
    names = [entry for entry in settings.MODEL_HOSTS if "://" not in entry]
    if not _is_hub(place.host) and not any(_matches(place.host, name) for name in names):
        raise Problem("host_not_allowed", host=place.host)
    if place.scheme != "https":
        raise Problem("url_not_https", host=place.host)
    return place


def _own_places() -> list[Place]:
    entries = [entry for entry in settings.MODEL_HOSTS if "://" in entry]
    places = [place_of(entry) for entry in (*entries, settings.HF_ENDPOINT, settings.MODELSCOPE_ENDPOINT)]
    # The hubs themselves have no business with private addresses, whoever answers for their names.
    return [place for place in places if place.scheme != "https" or not _is_hub(place.host)]


def _is_hub(host: str) -> bool:
    return any(host == name or host.endswith("." + name) for name in HUB_HOSTS)


def _matches(host: str, entry: str) -> bool:
    name = entry.lower().rstrip(".")
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


async def resolve(place: Place) -> list[str]:
    """The addresses to connect to. Raises Problem when one of them is not public, Passing when there is none."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Passing("host_unknown", host=place.host) from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not place.own and not is_public(address):
            raise Problem("address_private", host=place.host, address=address)
    return addresses


def is_public(address: str) -> bool:
    """False for everything that is not on the internet, also where IPv6 wraps an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(one.is_global and not one.is_multicast for one in _with_wrapped(ip))


def _with_wrapped(ip: IpAddress) -> list[IpAddress]:
    ip = plain(ip)
    wrapped: list[IpAddress | None] = []
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = [ip.sixtofour, *(ip.teredo or ())]
        if ip in NAT64:
            wrapped.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [ip, *(one for one in wrapped if one is not None)]
