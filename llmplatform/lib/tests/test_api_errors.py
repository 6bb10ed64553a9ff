"""One error shape for everything that can go wrong below a REST endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import exceptions as django
from django.db import InterfaceError, OperationalError
from django.http import Http404, UnreadablePostError
from rest_framework import exceptions as drf

from llmplatform.lib.api.errors import ApiError, exception_handler


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ApiError("model_not_found", "No such model.", 404), 404, "model_not_found"),
        (drf.ValidationError({"name": ["wrong"]}), 400, "invalid_request"),
        (drf.ValidationError(["wrong"]), 400, "invalid_request"),
        (django.ValidationError("wrong"), 400, "invalid_request"),
        (django.ValidationError({"name": ["wrong"]}), 400, "invalid_request"),
        (drf.ParseError("bad"), 400, "invalid_request"),
        (django.SuspiciousOperation("x"), 400, "invalid_request"),
        (django.BadRequest("x"), 400, "invalid_request"),
        (UnreadablePostError("x"), 400, "invalid_request"),
        (django.RequestDataTooBig("x"), 413, "request_too_large"),
        (drf.NotAuthenticated(), 401, "invalid_api_key"),
        (drf.AuthenticationFailed(), 401, "invalid_api_key"),
        (drf.PermissionDenied(), 403, "permission_denied"),
        (django.PermissionDenied(), 403, "permission_denied"),
        (Http404(), 404, "not_found"),
        (drf.NotFound(), 404, "not_found"),
        (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (drf.NotAcceptable(), 406, "not_acceptable"),
        (drf.UnsupportedMediaType("x"), 415, "invalid_request"),
        (drf.Throttled(wait=1.2), 429, "rate_limit_exceeded"),
        (OperationalError("/home/secret/llm.db is locked"), 503, "database_unavailable"),
        (InterfaceError("connection to 10.0.0.3 lost"), 503, "database_unavailable"),
        (RuntimeError("/home/secret at 10.0.0.3"), 500, "internal_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_each_exception(error: Exception, status: int, code: str) -> None:
    response = exception_handler(error, {})
    body: dict[str, Any] = response.data
    assert (response.status_code, body["error"]["code"]) == (status, code)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "details"}
    assert "secret" not in str(body)
    assert "10.0.0.3" not in str(body)


def test_details_are_per_field() -> None:
    response = exception_handler(drf.ValidationError({"name": ["wrong"]}), {})
    assert response.data["error"]["details"] == {"name": ["wrong"]}


def test_when_to_come_back_is_told() -> None:
    assert exception_handler(drf.Throttled(wait=1.2), {})["Retry-After"] == "2"
    assert int(exception_handler(OperationalError("x"), {})["Retry-After"]) > 0
    assert exception_handler(ApiError("overloaded", "x", 503, retry_after=7), {})["Retry-After"] == "7"


def test_a_401_says_how_to_authenticate() -> None:
    assert exception_handler(drf.NotAuthenticated(), {})["WWW-Authenticate"] == 'Bearer realm="api"'
