"""One ASGI application: the inference path (Starlette), websockets (Channels), static files, and Django for the rest."""

from __future__ import annotations

import os
from typing import cast

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
django_application = get_asgi_application()  # before anything that touches models

from llmplatform.lib.proxies import App  # noqa: E402
from llmplatform.routing import build_application  # noqa: E402

application = build_application(cast(App, django_application))
