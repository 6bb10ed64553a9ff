"""Whether the service lives, for load balancers and people; and what to show when a page goes wrong."""

from __future__ import annotations

import re
import sys

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from llmplatform.lib.api.errors import DATABASE_TROUBLE, database_unavailable, json_error
from llmplatform.lib.console.policy import CONSOLE_PREFIX
from models_app import supervisor_lock

API_PATH = re.compile(r"^/(api|v1)(/|$)")


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """The process lives. Nothing else is asked, so that a slow database does not get the web server restarted."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """The database answers and the supervisor lives; 503 naming what does not."""
    parts = {"database": _database_answers(), "supervisor": supervisor_lock.holder() is not None}
    ready = all(parts.values())
    return JsonResponse({"status": "ok" if ready else "unavailable", **parts}, status=200 if ready else 503)


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return bool(cursor.fetchone() == (1,))
    except DatabaseError:
        return False


# -- what went wrong ---------------------------------------------------------------------------------------------------
def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _wrong(request, 404, "not_found", _("There is nothing here."))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    text = _("You are not allowed to do this.")
    if request.path_info.startswith(CONSOLE_PREFIX) and getattr(request.user, "role", "") == "operator":
        text = _("This page is for administrators; you are an operator.")
    return _wrong(request, 403, "permission_denied", text)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _wrong(request, 400, "invalid_request", _("This request is not understood."))


def server_error(request: HttpRequest) -> HttpResponse:
    if isinstance(sys.exc_info()[1], DATABASE_TROUBLE):  # Django tells its handler of 500 nothing of the exception
        error = database_unavailable()
        answer = _wrong(request, error.status_code, error.code, str(error.message))
        answer["Retry-After"] = str(error.retry_after)
        return answer
    return _wrong(request, 500, "internal_error", _("Something went wrong here; the log says what."))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _wrong(
        request,
        403,
        "permission_denied",
        _("This form was not sent from this site, or it is too old. Reload the page."),
    )


def _wrong(request: HttpRequest, status: int, code: str, message: str) -> HttpResponse:
    """The API's error shape where programs call, a page where people do."""
    if API_PATH.match(request.path):
        return json_error(request, code, message, status)
    return render(request, "site/error.html", {"status": status, "message": message}, status=status)
