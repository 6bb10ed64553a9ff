"""Websocket paths."""

from __future__ import annotations

from channels.routing import URLRouter
from django.urls import path

from chat.consumers import ChatConsumer

websocket_application = URLRouter([path("ws/chat", ChatConsumer.as_asgi())])
