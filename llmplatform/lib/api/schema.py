"""The API's description (OpenAPI): how callers log in, what they send, what an error looks like."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

BEARER = {"type": "http", "scheme": "bearer", "description": "The access token of /api/v1/auth/login, or an API key."}
API_KEY = {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same in Anthropic's header."}

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "properties": {
                "code": {"type": "string", "description": "stable, in English", "example": "model_not_found"},
                "message": {"type": "string", "description": "for people, by Accept-Language"},
                "details": {
                    "type": "object",
                    "additionalProperties": {},
                    "description": "by field for invalid_request",
                },
            },
        }
    },
}


class Schema(AutoSchema):
    def map_parsers(self) -> list[str]:
        """What clients should send; the parser itself takes JSON whatever it is declared as."""
        return ["application/json"]


def add_error_answer(result: dict[str, Any], generator: Any, **_others: Any) -> dict[str, Any]:
    """Every operation of ours answers errors in the one shape; said once here instead of at each view."""
    result.setdefault("components", {}).setdefault("schemas", {})["Error"] = ERROR
    answer = {
        "description": "An error: 400, 401, 403, 404, 409, 429 …",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    for operations in result.get("paths", {}).values():
        for operation in operations.values():
            if isinstance(operation, dict):
                operation.setdefault("responses", {}).setdefault("default", answer)
    return result


class StrictSerializerSchema(OpenApiSerializerExtension):
    """What a request body of ours refuses: fields that are not described, and empty texts where they mean nothing."""

    target_class = "llmplatform.lib.api.serializers.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        if direction != "request":
            return schema
        for name, field in self.target.fields.items():
            if isinstance(field, serializers.CharField) and not field.allow_blank:
                schema["properties"][name].setdefault("minLength", 1)
        return {**schema, "additionalProperties": False}


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.api.authentication.BearerAuthentication"
    name = ["bearer", "api_key"]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        return [BEARER, API_KEY]


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.api.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "Browsers; with X-CSRFToken."}


class ClusterTokenScheme(OpenApiAuthenticationExtension):
    target_class = "cluster.api.authentication.ClusterTokenAuthentication"
    name = "cluster_token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "CLUSTER_TOKEN, for machines."}
