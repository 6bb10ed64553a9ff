"""The Starlette application for the inference path."""

from __future__ import annotations

from starlette.applications import Starlette

gateway_application = Starlette(routes=[])
