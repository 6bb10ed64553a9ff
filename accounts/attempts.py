"""How often something that invites guessing may be tried: so many times in the minute that the first attempt begins, counted in
this process's memory. The first and cheapest door; ``accounts.lockout`` is the second.

An attempt is counted before it is made, so that a thousand at once do not slip through, and a good one is given back: people
behind one proxy address can all log in.
"""

from __future__ import annotations

import ipaddress
import math
import time

from django.core.cache import cache
from django.utils.translation import ngettext

WINDOW_SECONDS = 60
PER_WINDOW = 30
NOWHERE = "0.0.0.0"  # noqa: S104 - stands for what is no address


class TooManyAttempts(Exception):
    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        """For people, in their language."""
        seconds, minutes = self.retry_after, math.ceil(self.retry_after / 60)
        if seconds > 2 * 60:
            text = ngettext(
                "Too many attempts. Try again in %(minutes)d minute.",
                "Too many attempts. Try again in %(minutes)d minutes.",
                minutes,
            )
            return text % {"minutes": minutes}
        text = ngettext(
            "Too many attempts. Try again in %(seconds)d second.",
            "Too many attempts. Try again in %(seconds)d seconds.",
            seconds,
        )
        return text % {"seconds": seconds}


def count(what: str, address: str) -> None:
    """Raises TooManyAttempts when this address has used up its attempts for now."""
    count_up_to(PER_WINDOW, WINDOW_SECONDS, what, customer(address))


def give_back(what: str, address: str) -> None:
    try:
        cache.decr(_key(what, customer(address)))
    except ValueError:  # the minute has ended
        return


def count_up_to(most: int, seconds: int, what: str, whom: str) -> None:
    """Raises TooManyAttempts at more than ``most`` in ``seconds``."""
    key = _key(what, whom)
    now = time.time()
    if cache.add(key, 0, timeout=seconds):
        cache.set(f"{key}:until", now + seconds, timeout=seconds)
    try:
        made = cache.incr(key)
    except ValueError:  # the time has just ended
        return
    if made > most:
        left = cache.get(f"{key}:until", now) - now
        raise TooManyAttempts(min(seconds, max(1, math.ceil(left))))


def customer(address: str) -> str:
    """The address that stands for all that one customer calls from: with IPv6 that is a whole /64."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return NOWHERE
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped or ip.version == 4:
        return str(mapped or ip)
    return str(ipaddress.ip_network((ip, 64), strict=False).network_address)


def _key(what: str, whom: str) -> str:
    return f"attempts:{what}:{whom}"
