"""Other sites' pages on the inference path, where the administrator names them (``CORS_ALLOWED_ORIGINS``).

Starlette's middleware decides; here it gets what it needs, answers a preflight with 204, and is passed by where a request says
nothing of its origin, as those of programs never do. A browser's cookies are not for other sites' pages: nothing here ever says
``Access-Control-Allow-Credentials``, so a page elsewhere needs a key, as every program does.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from accounts.models import new_request_id
from llmplatform.lib.origins import ANY

METHODS = ("GET", "POST", "OPTIONS")
REMEMBERED_SECONDS = 600
EXPOSED = (
    "x-request-id",
    *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
    "retry-after",
    "x-queue-ms",
    "x-queue-position",
    "x-queue-estimate-ms",
    "x-replica",
    "x-max-tokens",
    "x-should-retry",
    "openai-processing-ms",
)


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Answers nothing."""


class CrossOrigin(CORSMiddleware):
    """Around the inference application; around nothing where only ``headers_for`` is wanted."""

    def __init__(self, app: ASGIApp | None, origins: Sequence[str]) -> None:
        # Which headers a page sends is its own affair: the official clients alone have a dozen.
        super().__init__(
            app or _nothing,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=(ANY,),
            expose_headers=EXPOSED,
            max_age=REMEMBERED_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if any(name == b"origin" for name, _value in scope["headers"]):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """What is not allowed is not named in it; the browser then sends nothing."""
        decided = super().preflight_response(request_headers)
        unwanted = {"content-length", "content-type"}
        headers = {name: value for name, value in decided.headers.items() if name not in unwanted}
        headers["x-request-id"] = new_request_id()
        return Response(status_code=204, headers=headers)

    def headers_for(self, origin: str) -> dict[str, str]:
        """Of an answer that another part of the server gives in the application's place."""
        if not self.is_allowed_origin(origin):
            return {"vary": "Origin"}
        allowed = {"access-control-allow-origin": ANY if self.allow_all_origins else origin, "vary": "Origin"}
        return {**self.simple_headers, **allowed}
