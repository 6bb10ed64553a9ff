"""Addresses and the networks they lie in."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def plain(ip: IpAddress) -> IpAddress:
    """IPv4 written as IPv6 (``::ffff:127.0.0.1``) is judged as what it is."""
    mapped = getattr(ip, "ipv4_mapped", None)
    return mapped if mapped is not None else ip


def parse_all(networks: Iterable[str]) -> tuple[Network, ...]:
    """Addresses or CIDR. Raises ValueError for what is neither."""
    return tuple(ipaddress.ip_network(network, strict=False) for network in networks)


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """False for what is no address. A zone (``fe80::1%eth0``) is not looked at."""
    try:
        ip = plain(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False
    return any(ip in network for network in networks)


def is_within(address: str, networks: Iterable[str]) -> bool:
    """The same for networks as text."""
    return is_in(address, parse_all(networks))


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this very machine. Names other than localhost are not resolved: they are not."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or is_within(host, ("127.0.0.0/8", "::1"))
