"""Origins of other sites, as browsers name them in ``Origin``."""

from __future__ import annotations

import re

ANY = "*"
# A scheme and a host: an app's own scheme too, but no path, and in small letters.
ORIGIN = re.compile(r"[a-z][a-z0-9+.\-]*://(?:[a-z0-9._\-]+|\[[0-9a-f:]+\])(?::\d{1,5})?")
USUAL_PORTS = re.compile(r"http:.*:80|https:.*:443")  # browsers leave them out


def is_origin(text: str) -> bool:
    """Whether a browser could call itself that."""
    return ORIGIN.fullmatch(text) is not None and not USUAL_PORTS.fullmatch(text)
