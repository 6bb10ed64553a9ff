"""Under which names and addresses this machine is reached."""

from __future__ import annotations

import ipaddress
import socket

import psutil


def own_addresses() -> list[str]:
    """Addresses of this machine's network interfaces, loopback and link-local ones left out, IPv4 first."""
    found: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family in {socket.AF_INET, socket.AF_INET6}:
                ip = ipaddress.ip_address(address.address.partition("%")[0])
                if not ip.is_loopback and not ip.is_link_local:
                    found.add(ip)
    return [str(ip) for ip in sorted(found, key=lambda ip: (ip.version, int(ip)))]


def own_host_names() -> list[str]:
    """What ``ALLOWED_HOSTS`` is when the administrator sets none: this machine's own names and addresses, nothing else.

    A page elsewhere whose DNS name is rebound to our address carries its own name in ``Host`` and is refused.
    """
    name = socket.gethostname()
    names = ["localhost", "127.0.0.1", "[::1]", name, name.partition(".")[0]]
    names += [f"[{address}]" if ":" in address else address for address in own_addresses()]
    return sorted({entry.lower() for entry in names if entry})
