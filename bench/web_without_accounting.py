"""The web server with nothing set aside, charged or recorded: only to tell what accounting costs (``gateway.py --accounting``).

The service has no such setting. Sign-in, limits and the fair queue stay.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import django

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
django.setup()

from django.core.management import execute_from_command_line  # noqa: E402

from accounts.quota import Held, HoldRequest, Settlement  # noqa: E402
from gateway import exchange  # noqa: E402


class NoBilling:
    async def hold(self, request: HoldRequest) -> Held:
        return Held(request.request_id, 0, request.max_tokens, True)

    def settle(self, settlement: Settlement, under_way: int | None = None) -> None:
        pass


exchange.billing = NoBilling()  # type: ignore[assignment]
exchange.Exchange.note = lambda self, prompt=0: None  # type: ignore[method-assign]
if sys.argv[1:2] == ["uvicorn"]:
    import uvicorn

    port, quiet = int(sys.argv[2]), {"log_level": "error", "access_log": False, "lifespan": "off"}
    uvicorn.run("llmplatform.asgi:application", host="127.0.0.1", port=port, **quiet)  # type: ignore[arg-type]
else:
    execute_from_command_line(["manage.py", "web"])
