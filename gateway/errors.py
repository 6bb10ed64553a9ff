"""Everything the inference path refuses or fails with, and how each protocol says it.

    GatewayError                any refusal or failure a caller is told about
    (made by the functions below, so that status, code and type of one situation stand in one place)

``code`` is stable and English; ``message`` is translated when it is read, into the language active then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from django.utils.translation import gettext_lazy as _

from accounts.limits import LimitExceeded


class Protocol(Enum):
    """Whose error format a client expects."""

    OPENAI = "openai"
    RESPONSES = "responses"  # OpenAI's, except for errors inside a stream
    ANTHROPIC = "anthropic"
    REST = "rest"


@dataclass(eq=False)
class GatewayError(Exception):
    """One situation of the table in the API description. ``template`` may be lazy; ``message`` is it, filled in."""

    status: int
    code: str
    template: Any
    type: str = "invalid_request_error"
    param: str | None = None
    retry_after: int | None = None
    values: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] | None = None  # REST only: what is wrong, per field
    headers: dict[str, str] = field(default_factory=dict)  # further ones of the answer

    @property
    def message(self) -> str:
        return str(self.template) % self.values if self.values else str(self.template)

    def __str__(self) -> str:
        return f"{self.status} {self.code}"


# -- the situations --------------------------------------------------------------------------------------------------
def invalid(template: Any, param: str | None = None, **values: Any) -> GatewayError:
    return GatewayError(400, "invalid_request", template, param=param, values=values)


def not_authenticated() -> GatewayError:
    return GatewayError(401, "invalid_api_key", _("Log in first: the token is missing, wrong or expired."))


def permission_denied() -> GatewayError:
    return GatewayError(403, "permission_denied", _("You are not allowed to do this."), "permission_error")


def address_forbidden(address: str) -> GatewayError:
    """Whoever has the key learns which address is seen here: behind proxies that is seldom the one they think of."""
    template = _("This key may not be used from the address %(address)s.")
    return GatewayError(403, "permission_denied", template, "permission_error", values={"address": address})


def scope_missing(scope: str) -> GatewayError:
    template = _("This key may not be used for that: it lacks the scope “%(scope)s”.")
    return GatewayError(403, "permission_denied", template, "permission_error", values={"scope": scope})


def model_forbidden(name: str) -> GatewayError:
    template = _("This key may not use the model “%(model)s”.")
    values = {"model": name}
    return GatewayError(403, "permission_denied", template, "permission_error", param="model", values=values)


def not_found() -> GatewayError:
    return GatewayError(404, "not_found", _("There is nothing here."))


def model_not_found(name: str) -> GatewayError:
    template = _("There is no model “%(model)s” here.")
    return GatewayError(404, "model_not_found", template, param="model", values={"model": name})


def model_missing() -> GatewayError:
    return invalid(_("“model” is missing: name the model to use."), "model")


def method_not_allowed(allowed: str) -> GatewayError:
    template = _("This address does not take that method.")
    return GatewayError(405, "method_not_allowed", template, headers={"allow": allowed})


def too_large(limit_mb: int) -> GatewayError:
    return GatewayError(
        413, "request_too_large", _("The body is larger than %(limit)d MB."), values={"limit": limit_mb}
    )


def head_too_large() -> GatewayError:
    return GatewayError(431, "request_too_large", _("The headers of the request are too large."))


def wrong_host() -> GatewayError:
    return GatewayError(400, "invalid_host", _("This service does not answer to that host name; see ALLOWED_HOSTS."))


_SUBJECTS = {
    "key": _("this key"),
    "user": _("your account"),
    "group": _("your group"),
    "model": _("this model"),
}
_LIMITS = {
    "requests": _("At most %(limit)d requests a minute for %(subject)s; try again in %(seconds)d seconds."),
    "tokens": _("At most %(limit)d tokens a minute for %(subject)s; try again in %(seconds)d seconds."),
    "concurrent": _("At most %(limit)d requests at once for %(subject)s; wait until one is answered."),
}


def rate_limited(refusal: LimitExceeded) -> GatewayError:
    subject = _SUBJECTS[refusal.subject.partition(":")[0]]
    return GatewayError(
        429,
        "rate_limit_exceeded",
        _LIMITS[refusal.what],
        refusal.what if refusal.what != "concurrent" else "requests",
        retry_after=refusal.retry_after,
        values={"limit": refusal.limit, "subject": subject, "seconds": refusal.retry_after},
        headers=refusal.standing.headers(),
    )


def insufficient_quota() -> GatewayError:
    template = _("The balance is too small for this request.")
    return GatewayError(429, "insufficient_quota", template, "insufficient_quota")


def budget_used_up() -> GatewayError:
    template = _("What is left of this key's budget is too small for this request.")
    return GatewayError(429, "insufficient_quota", template, "insufficient_quota")


def context_length_exceeded(prompt: int, context: int, param: str | None = None) -> GatewayError:
    template = _("The prompt has %(prompt)d tokens, the model's context holds %(context)d.")
    values = {"prompt": prompt, "context": context}
    return GatewayError(400, "context_length_exceeded", template, param=param, values=values)


def not_supported(template: Any, param: str | None = None, **values: Any) -> GatewayError:
    return GatewayError(400, "not_supported", template, param=param, values=values)


def model_not_available(name: str, retry_after: int) -> GatewayError:
    template = _("The model “%(model)s” is not running.")
    return GatewayError(
        503, "model_not_available", template, "server_error", retry_after=retry_after, values={"model": name}
    )


def overloaded(retry_after: int) -> GatewayError:
    template = _("Too many requests are waiting; try again later.")
    return GatewayError(503, "overloaded", template, "server_error", retry_after=retry_after)


def upstream_error() -> GatewayError:
    return GatewayError(502, "upstream_error", _("The model's server failed while answering."), "server_error")


def took_too_long(seconds: int) -> GatewayError:
    template = _("The answer took longer than %(seconds)d seconds and was ended.")
    return GatewayError(504, "timeout", template, "server_error", values={"seconds": seconds})


def unavailable() -> GatewayError:
    template = _("The service cannot take requests at the moment.")
    return GatewayError(503, "service_unavailable", template, "server_error", retry_after=5)


def internal() -> GatewayError:
    return GatewayError(500, "internal_error", _("Something went wrong here; the log says what."), "server_error")


# -- how each protocol says it ---------------------------------------------------------------------------------------
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def _anthropic(error: GatewayError) -> dict[str, Any]:
    fallback = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _ANTHROPIC_TYPES.get(error.status, fallback)
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def _openai(error: GatewayError) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def _rest(error: GatewayError) -> dict[str, Any]:
    details = error.details
    if details is None:
        details = {error.param: [error.message]} if error.code == "invalid_request" and error.param else {}
    return {"error": {"code": error.code, "message": error.message, "details": details}}


def as_dict(error: GatewayError, protocol: Protocol) -> dict[str, Any]:
    """The error as the body of an answer."""
    if protocol is Protocol.ANTHROPIC:
        return _anthropic(error)
    return _rest(error) if protocol is Protocol.REST else _openai(error)


def as_body(error: GatewayError, protocol: Protocol) -> bytes:
    # What a client wrote may stand in it, half a surrogate pair too, which no encoding takes.
    return json.dumps(as_dict(error, protocol), ensure_ascii=False).encode("utf-8", "replace")


def as_headers(error: GatewayError) -> dict[str, str]:
    headers = {"content-type": "application/json", **error.headers}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.status == 401:
        headers["www-authenticate"] = 'Bearer realm="api"'
    if error.code == "insufficient_quota":
        headers["x-should-retry"] = "false"  # the official clients try a 429 again unless told this
    return headers


def as_event(error: GatewayError, protocol: Protocol) -> bytes:
    """The error as the last event of a stream that has begun."""
    if protocol is Protocol.OPENAI:
        return b"data: " + as_body(error, protocol) + b"\n\n"
    if protocol is Protocol.RESPONSES:
        event = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
        return b"event: error\ndata: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n"
    return b"event: error\ndata: " + as_body(error, protocol) + b"\n\n"
