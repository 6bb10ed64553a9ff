"""A proxy of a few lines on a web server of ours: what server and client cost before the gateway does anything (``gateway.py``).

python bench/bare_proxy.py daphne|uvicorn PORT UPSTREAM_PORT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import django

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
django.setup()

SERVER, PORT, UPSTREAM = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sessions: list[aiohttp.ClientSession] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    if not sessions:
        sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    url, headers = f"http://127.0.0.1:{UPSTREAM}{scope['path']}", {"Content-Type": "application/json"}
    async with sessions[0].post(url, data=body, headers=headers) as answer:
        told = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() != b"transfer-encoding"]
        await send({"type": "http.response.start", "status": answer.status, "headers": told})
        async for chunk in answer.content.iter_any():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


if SERVER == "daphne":
    from llmplatform.service import web

    web.run(application, web.endpoint("127.0.0.1", PORT))
else:
    import uvicorn

    uvicorn.run(application, host="127.0.0.1", port=PORT, log_level="error", access_log=False, lifespan="off")
