"""Which part of the service answers which path."""

from __future__ import annotations

from typing import Any

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from servestatic import ServeStaticASGI

from chat.routing import websocket_application
from gateway.app import PATHS, gateway_application
from gateway.cors import CrossOrigin
from llmplatform.lib.proxies import App, BehindProxies, Scope


def build_application(django_application: App) -> App:
    static = ServeStaticASGI(
        django_application,
        root=settings.STATIC_ROOT,
        prefix=settings.STATIC_URL,
        immutable_file_test=r"^.+\.[0-9a-f]{12}\..+$",
    )

    origins = settings.CORS_ALLOWED_ORIGINS
    inference: App = CrossOrigin(gateway_application, origins) if origins else gateway_application

    async def http(scope: Scope, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        if PATHS.match(path):
            await inference(scope, receive, send)
        elif path.startswith(settings.STATIC_URL):
            await static(scope, receive, send)
        else:
            await django_application(scope, receive, send)

    application: App = ProtocolTypeRouter({"http": http, "websocket": websocket_application})
    return BehindProxies(application, settings.TRUSTED_PROXIES)
