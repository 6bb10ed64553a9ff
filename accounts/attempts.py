"""How often one address may try something that invites guessing: so many times in the minute that its first attempt begins,
counted in the cache.

An attempt is counted before it is made, so that a thousand at once do not slip through, and a good one is given back: people
behind one proxy address can all log in.
"""

from __future__ import annotations

import ipaddress
import math
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
    now = time.time()
    if cache.add(key, 0, timeout=WINDOW_SECONDS):
        cache.set(f"{key}:until", now + WINDOW_SECONDS, timeout=WINDOW_SECONDS)
    try:
        made = cache.incr(key)
    except ValueError:  # the minute has just ended
        return
    if made > PER_WINDOW:
        left = cache.get(f"{key}:until", now) - now
        raise TooManyAttempts(min(WINDOW_SECONDS, max(1, math.ceil(left))))


def give_back(what: str, address: str) -> None:
    try:
        cache.decr(_key(what, address))
    except ValueError:  # the minute has ended
        return


def _key(what: str, address: str) -> str:
    return f"attempts:{what}:{_network(address)}"


def _network(address: str) -> str:
    """An IPv6 customer has a whole /64 to call from."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
