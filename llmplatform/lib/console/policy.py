"""Content-Security-Policy of the console: what Unfold needs beyond the strict policy of our own pages, under /admin/ only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from csp.constants import UNSAFE_EVAL, UNSAFE_INLINE
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

CONSOLE_PREFIX = "/admin/"
# Alpine compiles its attributes (eval); Unfold writes its colours and htmx its indicator as inline styles.
# Scripts stay limited to our own files: no inline script runs.
CONSOLE_UPDATE = {"script-src": [UNSAFE_EVAL], "style-src": [UNSAFE_INLINE]}


def _loosen(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if request.path_info.startswith(CONSOLE_PREFIX):
        response._csp_update = CONSOLE_UPDATE  # type: ignore[attr-defined]  # the way django-csp's decorator tells it
    return response


@sync_and_async_middleware
def console_policy(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Stands after CSPMiddleware in the list, so that it has spoken before that one writes the header."""
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            response: Awaitable[HttpResponseBase] = get_response(request)
            return _loosen(request, await response)

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return _loosen(request, get_response(request))

    return synchronous
