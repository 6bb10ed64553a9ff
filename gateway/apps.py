from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _
from prometheus_client import REGISTRY

from cluster import live


class GatewayConfig(AppConfig):
    name = "gateway"
    verbose_name = _("Gateway")

    def ready(self) -> None:
        stats = import_module("gateway.stats")  # needs the models, which are there only now
        live.register("gateway", stats.figures)
        REGISTRY.register(stats.LiveCollector())
