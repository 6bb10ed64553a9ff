"""One ASGI application: the inference path (Starlette), websockets (Channels), static files, and Django for the rest."""

from __future__ import annotations

import os
from typing import cast

from django.core.asgi import get_asgi_application

from llmplatform.lib.configuration import ConfigurationError
from llmplatform.lib.early_messages import translate as _

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
django_application = get_asgi_application()  # before anything that touches models

from llmplatform import settings  # noqa: E402
from llmplatform.routing import App, build_application  # noqa: E402

# With the fallback that stands in the source, anybody could make tokens of their own.
if not (settings.env.secret("JWT_SECRET") and settings.env.secret("SECRET_KEY")):
    raise ConfigurationError(
        _("%(path)s holds no secrets yet: run “python manage.py serve” once.") % {"path": settings.ENV_FILE}
    )

application = build_application(cast(App, django_application))
