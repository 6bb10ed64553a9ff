"""The one error shape of the REST API: ``{"error": {"code", "message", "details"}}``; see ``llmplatform.lib.errors``.

``code`` is stable and English, ``message`` is translated, ``details`` is per field for ``invalid_request``.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation, ValidationError
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, JsonResponse, UnreadablePostError
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response

from llmplatform.lib.errors import ApiError as ApiError

logger = logging.getLogger(__name__)
CHALLENGE = 'Bearer realm="api"'
# It is away or busy; other errors of it are a fault of ours.
DATABASE_TROUBLE = (OperationalError, InterfaceError)
DATABASE_RETRY_SECONDS = 5


def body(code: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": str(message), "details": details or {}}}


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response:
    """DRF's EXCEPTION_HANDLER. Never answers with a traceback: what nobody expected is logged and told as internal_error."""
    error = _as_api_error(exc)
    if error is None:
        logger.error("unhandled error in %s", type(context.get("view")).__name__, exc_info=exc)
        error = ApiError("internal_error", _("Something went wrong here; the log says what."), 500)
    response = Response(body(error.code, error.message, error.details), status=error.status_code)
    if error.retry_after is not None:
        response["Retry-After"] = str(error.retry_after)
    if error.status_code == 401:
        response["WWW-Authenticate"] = CHALLENGE
    return response


def database_unavailable() -> ApiError:
    text = _("The database does not answer; try again in a moment.")
    return ApiError("database_unavailable", text, 503, retry_after=DATABASE_RETRY_SECONDS)


def _invalid(details: Any) -> ApiError:
    return ApiError("invalid_request", _("Some fields are not right; details says which."), details=dict(details))


def _field_errors(error: ValidationError) -> Any:
    return error.message_dict if hasattr(error, "error_dict") else {"body": error.messages}


def _as_api_error(exc: Exception) -> ApiError | None:
    match exc:
        case ApiError():
            return exc
        case exceptions.ValidationError():
            return _invalid(exc.detail if isinstance(exc.detail, dict) else {"body": exc.detail})
        case ValidationError():
            return _invalid(_field_errors(exc))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return ApiError("invalid_api_key", _("Log in first: the token is missing, wrong or expired."), 401)
        case exceptions.PermissionDenied() | PermissionDenied():
            return ApiError("permission_denied", _("You are not allowed to do this."), 403)
        case exceptions.NotFound() | Http404():
            return ApiError("not_found", _("There is nothing here."), 404)
        case exceptions.Throttled():
            return ApiError(
                "rate_limit_exceeded",
                _("Too many requests; wait a little."),
                429,
                retry_after=math.ceil(getattr(exc, "wait", None) or 1),
            )
        case exceptions.ParseError():
            return ApiError("invalid_request", _("The body is not valid JSON: %(reason)s") % {"reason": exc.detail})
        case exceptions.UnsupportedMediaType():
            return ApiError("invalid_request", _("Send JSON, with Content-Type: application/json."), 415)
        case RequestDataTooBig():
            limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20
            return ApiError("request_too_large", _("The body is larger than %(limit)d MB.") % {"limit": limit}, 413)
        case SuspiciousOperation() | BadRequest() | UnreadablePostError():
            return ApiError("invalid_request", _("The request cannot be read."))
        case OperationalError() | InterfaceError():
            logger.error("the database does not answer", exc_info=exc)
            return database_unavailable()
        case exceptions.MethodNotAllowed():
            return ApiError("method_not_allowed", _("This address does not take that method."), 405)
        case exceptions.APIException():
            return ApiError(str(exc.default_code), str(exc.detail), exc.status_code)
    return None


def json_error(request: HttpRequest, code: str, message: str, status_code: int) -> JsonResponse:
    """The same shape for Django's own handlers (404, 500, CSRF) on API paths."""
    return JsonResponse(body(code, message), status=status_code)
