"""The one error shape of the REST API: ``{"error": {"code", "message", "details"}}``; see ``llmplatform.lib.errors``.

``code`` is stable and English, ``message`` is translated, ``details`` is per field for ``invalid_request``.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.translation import gettext as _
from rest_framework import exceptions
from rest_framework.response import Response

from llmplatform.lib.errors import ApiError as ApiError

logger = logging.getLogger(__name__)


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
    if challenge := getattr(exc, "auth_header", None):
        response["WWW-Authenticate"] = challenge
    return response


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
                retry_after=int(getattr(exc, "wait", None) or 1),
            )
        case exceptions.ParseError():
            return ApiError("invalid_request", _("The body is not valid JSON: %(reason)s") % {"reason": exc.detail})
        case exceptions.UnsupportedMediaType():
            return ApiError("invalid_request", _("Send JSON, with Content-Type: application/json."), 415)
        case exceptions.MethodNotAllowed():
            return ApiError("method_not_allowed", _("This address does not take that method."), 405)
        case exceptions.APIException():
            return ApiError(str(exc.default_code), str(exc.detail), exc.status_code)
    return None


def json_error(request: HttpRequest, code: str, message: str, status_code: int) -> JsonResponse:
    """The same shape for Django's own handlers (404, 500, CSRF) on API paths."""
    return JsonResponse(body(code, message), status=status_code)
