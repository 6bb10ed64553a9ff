"""How often one address may try something that invites guessing: so many times a minute, counted in the cache.

An attempt is counted before it is made, so that a thousand at once do not slip through, and a good one is given back: people
behind one proxy address can all log in.
"""

from __future__ import annotations

import ipaddress
import time

from django.core.cache import cache

WINDOW_SECONDS = 60
PER_WINDOW = 30


class TooManyAttempts(Exception):
    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


def count(what: str, address: str) -> None:
    """Raises TooManyAttempts when this address has used up its attempts for now."""
    key = _key(what, address)
    cache.add(key, 0, timeout=2 * WINDOW_SECONDS)
    try:
        made = cache.incr(key)
    except ValueError:  # the cache was full and has just dropped it
        return
    if made > PER_WINDOW:
        raise TooManyAttempts(WINDOW_SECONDS - int(time.time()) % WINDOW_SECONDS)


def give_back(what: str, address: str) -> None:
    try:
        cache.decr(_key(what, address))
    except ValueError:  # a new minute has begun
        return


def _key(what: str, address: str) -> str:
    return f"attempts:{what}:{_network(address)}:{int(time.time()) // WINDOW_SECONDS}"


def _network(address: str) -> str:
    """An IPv6 customer has a whole /64 to call from."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
