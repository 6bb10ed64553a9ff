"""The API's description: how callers log in, and Swagger UI without a file from outside or a script in the page."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.views import SpectacularSwaggerSplitView

BEARER = {"type": "http", "scheme": "bearer", "description": "The access token of /api/v1/auth/login."}


class DocsView(SpectacularSwaggerSplitView):
    template_name = "api/docs.html"


class BearerScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.api.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return BEARER


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.api.authentication.SessionAuthentication"
    name = "session"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "Browsers; with X-CSRFToken."}


class ClusterTokenScheme(OpenApiAuthenticationExtension):
    target_class = "cluster.api.authentication.ClusterTokenAuthentication"
    name = "cluster token"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        return {"type": "http", "scheme": "bearer", "description": "CLUSTER_TOKEN, for machines."}
