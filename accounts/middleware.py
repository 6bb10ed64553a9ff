"""Who is acting, for the audit log; and what holds for every page a person looks at: their time zone, and no page but one until
a first password is changed, or a second factor that one must have is set up.

``must_change_password`` is a rule for pages, the console among them. The API, the inference endpoints and the websocket take
the account's tokens all the same: the curl line of the first start works before anybody has opened a browser, and programs
read ``must_change_password`` in the user object. A second factor is another matter: whoever must have one and has none is
refused by the API and the socket too, whether by session or by token (``accounts.api.authentication``, ``accounts.callers``).
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from accounts.audit_log import actor_of
from accounts.selectors import lacks_second_factor
from llmplatform.lib import audit

# Programs get answers they understand from their own endpoints; a redirect to a form is for browsers only.
NOT_PAGES = re.compile(r"^/(api|v1|ws|static|metrics|healthz|readyz)(/|$)")
ALLOWED_BEFORE_CHANGE = frozenset({"/password", "/logout", "/language"})
ALLOWED_BEFORE_SETUP = ALLOWED_BEFORE_CHANGE | {"/account/security", "/account/security/on"}


@sync_and_async_middleware
def audit_actor(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """What a request changes is its caller's doing: pages, the console and the REST API alike, whatever proves who it is."""
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            with audit.acting(partial(actor_of, request)):
                response: Awaitable[HttpResponseBase] = get_response(request)
                return await response

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        with audit.acting(partial(actor_of, request)):
            response: HttpResponseBase = get_response(request)
            return response

    return synchronous


class PagesMiddleware(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if NOT_PAGES.match(request.path):
            return None
        _activate_timezone(request.COOKIES.get("timezone", ""))
        if request.path in ALLOWED_BEFORE_CHANGE or not request.user.is_authenticated:
            return None
        if request.user.must_change_password:
            return redirect("password")
        if request.path not in ALLOWED_BEFORE_SETUP and lacks_second_factor(request.user):
            return redirect("account_security")
        return None


def _activate_timezone(name: str) -> None:
    """Days on pages are the reader's days; site.js tells where they are. A name nobody knows means the server's own."""
    try:
        timezone.activate(zoneinfo.ZoneInfo(name))
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        timezone.deactivate()
