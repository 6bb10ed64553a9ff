"""What holds for every page a person looks at: their time zone, and no page but one until a first password is changed.

``must_change_password`` is a rule for pages, the console among them. The API, the inference endpoints and the websocket take
the account's tokens all the same: the curl line of the first start works before anybody has opened a browser, and programs
read ``must_change_password`` in the user object.
"""

from __future__ import annotations

import re
import zoneinfo

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin

# Programs get answers they understand from their own endpoints; a redirect to a form is for browsers only.
NOT_PAGES = re.compile(r"^/(api|v1|ws|static|metrics|healthz|readyz)(/|$)")
ALLOWED_BEFORE_CHANGE = frozenset({"/password", "/logout", "/language"})


class PagesMiddleware(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if NOT_PAGES.match(request.path):
            return None
        _activate_timezone(request.COOKIES.get("timezone", ""))
        if request.path in ALLOWED_BEFORE_CHANGE or not request.user.is_authenticated:
            return None
        return redirect("password") if request.user.must_change_password else None


def _activate_timezone(name: str) -> None:
    """Days on pages are the reader's days; site.js tells where they are. A name nobody knows means the server's own."""
    try:
        timezone.activate(zoneinfo.ZoneInfo(name))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        timezone.deactivate()
