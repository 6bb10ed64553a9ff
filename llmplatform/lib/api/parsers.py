"""JSON bodies, with a size limit and without surprises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.utils.translation import gettext as _
from rest_framework.parsers import JSONParser

from llmplatform.lib.api.errors import ApiError


class StrictJSONParser(JSONParser):
    """Takes JSON whatever the declared type is (curl's default is a form); 413 beyond the limit; NaN is refused."""

    media_type = "*/*"
    strict = True

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        request = (parser_context or {}).get("request")
        length = int(request.META.get("CONTENT_LENGTH") or 0) if request is not None else 0
        try:
            if length > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                raise RequestDataTooBig
            return super().parse(stream, media_type, dict(parser_context or {}))
        except RequestDataTooBig as error:
            raise ApiError(
                "request_too_large",
                _("The body is larger than %(limit)d MB.") % {"limit": settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20},
                413,
            ) from error
