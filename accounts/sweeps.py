"""What must happen without anybody asking for it. The supervisor calls ``run`` every minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from accounts import credits, lockout, old_sessions, quota, usage

logger = logging.getLogger(__name__)

SWEEPS: list[Callable[[], object]] = [
    quota.release_dead_holds,
    credits.expire_lots,
    credits.give_allowances,
    lockout.clean_up,
    usage.clean_up,
    old_sessions.clean_up,
]
OF_CREDIT = (credits.expire_lots, credits.give_allowances)  # each for ``credits.SECONDS`` at most


def run() -> bool:
    """Each sweep, even when another fails. True when one of credit had not the time for all of it.

    Raises the first failure at the end: the supervisor logs it and tries again later.
    """
    failure: Exception | None = None
    unfinished = False
    for sweep in SWEEPS:
        began = time.monotonic()
        try:
            sweep()
        except Exception as error:  # the loop's edge: an expiry that fails must not keep holds from being released
            logger.exception("%s failed", sweep.__name__)
            failure = failure or error
        unfinished |= sweep in OF_CREDIT and time.monotonic() - began >= credits.SECONDS
    if failure is not None:
        raise failure
    return unfinished
