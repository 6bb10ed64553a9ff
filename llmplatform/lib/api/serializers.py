"""Serializers that refuse what they do not know, and the error shape for the API's description."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer for request bodies and query parameters: an unknown field is an error, not silence."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = sorted(set(data) - {name for name, field in self.fields.items() if not field.read_only})
            if unknown:
                raise serializers.ValidationError({str(name): [_("Unknown field.")] for name in unknown})
        return super().to_internal_value(data)


class _Error(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="stable, English; see the table of codes")
    message = serializers.CharField(help_text="for people, in the language of Accept-Language")
    details = serializers.DictField(help_text="per field, for invalid_request")


class ErrorBody(serializers.Serializer[Any]):
    """What every refusal of the REST API looks like."""

    error = _Error()


def answers(success: dict[int, Any], *refusals: int) -> dict[int, Any]:
    """``responses`` for drf-spectacular: ``answers({201: UserSerializer}, 400, 403)``."""
    return {**success, **dict.fromkeys(refusals, ErrorBody)}
