"""What services tell a caller who asked for something impossible.

    ApiError                    anything a service wants to tell a caller
    ├── (subclasses in apps)    named there, with their own code and status

Apart from ``llmplatform.lib.api.errors``, which makes HTTP answers of them, because services also run in the supervisor, and
the REST framework's response machinery costs it 20 MB.
"""

from __future__ import annotations

from typing import Any

from rest_framework import exceptions


class ApiError(exceptions.APIException):
    """``ApiError("model_not_found", _("…"), 404)``; ``retry_after`` in seconds becomes the header."""

    def __init__(
        self,
        code: str,
        message: str,
        status_code: int = 400,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, code)
        self.code = code
        self.message = message
        self.status_code = status_code
        self.details = details or {}
        self.retry_after = retry_after
