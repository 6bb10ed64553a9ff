"""A wrong METRICS_ALLOW or CLUSTER_TOKEN is told at start, not by a failing scrape or a machine that cannot join."""

from __future__ import annotations

import ipaddress
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.utils.translation import gettext as _

from llmplatform.lib import credentials


@register()
def metrics_allow(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    for entry in settings.METRICS_ALLOW:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError:
            problems.append(
                Error(
                    _("METRICS_ALLOW: “%(entry)s” is not an address.") % {"entry": entry},
                    hint=_("Write addresses or networks with commas between, for example 127.0.0.1,10.0.0.0/8."),
                    id="cluster.E001",
                )
            )
    return problems


@register()
def cluster_token(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if not settings.CLUSTER_TOKEN or credentials.is_one_word(settings.CLUSTER_TOKEN):
        return []
    return [
        Error(
            _("CLUSTER_TOKEN cannot stand in a header."),
            hint=_("Letters, digits and signs such as - and _, without blanks and commas."),
            id="cluster.E002",
        )
    ]
