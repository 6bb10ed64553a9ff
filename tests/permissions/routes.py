"""Every route there is: Django's, the inference path's, the websockets'."""

from __future__ import annotations

import re
from collections.abc import Iterator

from channels.routing import URLRouter
from django.urls import URLPattern, URLResolver, get_resolver

from chat.routing import websocket_application
from gateway.app import Unknown, gateway_application

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
REST = "api/"
CONSOLE = "admin/"


def patterns(resolver: URLResolver, prefix: str = "") -> Iterator[tuple[str, URLPattern]]:
    for entry in resolver.url_patterns:
        path = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from patterns(entry, path)
        else:
            yield path, entry


def endpoints() -> set[tuple[str, str]]:
    """(method, path) of everything that Django answers below /api/, and /metrics, which is of the same kind."""
    return {
        (method, path)
        for path, pattern in patterns(get_resolver())
        if path.startswith(REST) or path == "metrics"
        for method in _methods(pattern)
    }


def _methods(pattern: URLPattern) -> list[str]:
    view = getattr(pattern.callback, "cls", None) or getattr(pattern.callback, "view_class", None)
    assert view is not None, f"{pattern.pattern}: the methods of a view that is no class cannot be found out"
    return [method for method in METHODS if hasattr(view, method.lower())]


def console_paths() -> set[str]:
    return {path for path, _pattern in patterns(get_resolver()) if path.startswith(CONSOLE)}


def page_paths() -> set[str]:
    """What is left of Django's: pages for people."""
    rest = {path for _method, path in endpoints()}
    return {path for path, _pattern in patterns(get_resolver())} - console_paths() - rest


def inference_endpoints() -> set[tuple[str, str]]:
    """(method, path) of everything that the gateway answers."""
    assert isinstance(gateway_application.default, Unknown), "what has no route here has to be refused"
    found = set()
    for route in gateway_application.routes:
        path = re.sub(r"\{(\w+)(?::\w+)?\}", r"<str:\1>", str(route.path))  # type: ignore[attr-defined]
        found.add((route.endpoint.method, path.lstrip("/")))  # type: ignore[attr-defined]
    return found


def websocket_paths() -> set[str]:
    assert isinstance(websocket_application, URLRouter)
    return {str(route.pattern) for route in websocket_application.routes}
