"""This machine's figures and the service's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import prometheus_client
from django.conf import settings
from django.http import HttpResponse
from django_prometheus.exports import ExportToDjangoView
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cluster import live, system
from cluster.api.nodes import stats
from llmplatform.lib import networks
from llmplatform.lib.api.negotiation import FirstRenderer
from llmplatform.lib.api.permissions import IsOperator
from llmplatform.lib.proxies import UNKNOWN_PROXY

TAG = ["monitoring"]


class PrometheusRenderer(BaseRenderer):
    media_type = "text/plain"
    format = "txt"
    charset = "utf-8"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        """Only errors come here: the metrics themselves are answered by the view."""
        return JSONRenderer().render(data)


class MayReadMetrics(IsOperator):
    """Operators, and whoever calls from an address in METRICS_ALLOW, directly or through one of TRUSTED_PROXIES.

    A header can take this right, never give it: of a proxy nobody has named, the address we see is its own.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        direct = UNKNOWN_PROXY not in getattr(request._request, "scope", {})
        address = str(request.META.get("REMOTE_ADDR", ""))
        if direct and networks.is_within(address, settings.METRICS_ALLOW):
            return True
        return super().has_permission(request, view)


class SystemView(APIView):
    permission_classes = [IsOperator]

    @extend_schema(tags=TAG, summary="CPU, memory, disk, load, and our processes", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        return Response(system.system_figures(live.figures("engines").get("processes", [])))


class MetricsSummaryView(APIView):
    permission_classes = [IsOperator]
    renderer_classes = [JSONRenderer, PrometheusRenderer]

    @extend_schema(
        tags=TAG,
        summary="Metrics in short",
        description="JSON; with `Accept: text/plain` the Prometheus text.",
        responses={(200, "application/json"): OpenApiTypes.OBJECT, (200, "text/plain"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> HttpResponse:
        if isinstance(request.accepted_renderer, PrometheusRenderer):
            return prometheus_text(request)
        return Response(summary())


class PrometheusView(APIView):
    """What Prometheus scrapes. Whatever Accept header it sends, it gets the text."""

    permission_classes = [MayReadMetrics]
    content_negotiation_class = FirstRenderer  # for errors

    @extend_schema(
        tags=TAG,
        summary="Metrics for Prometheus",
        description="For addresses in METRICS_ALLOW and for operators.",
        responses={(200, "text/plain"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> HttpResponse:
        return prometheus_text(request)


def prometheus_text(request: Request) -> HttpResponse:
    answer: HttpResponse = ExportToDjangoView(request)
    return answer


def summary() -> dict[str, Any]:
    figures = stats()
    return {
        **figures,
        "http": {"responses_by_status": _responses_by_status()},
        "counters": _own_counters(),
        "system": {"cpu": system.cpu_figures(), "memory": system.memory_figures()},
    }


def _responses_by_status() -> dict[str, int]:
    """Django's answers since this process started."""
    found: dict[str, int] = {}
    for metric in prometheus_client.REGISTRY.collect():
        if metric.name == "django_http_responses_total_by_status":
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    found[sample.labels["status"]] = int(sample.value)
    return found


def _own_counters() -> dict[str, float]:
    """The service's own counters and gauges (``llm_…``), summed over their labels."""
    found: dict[str, float] = {}
    for metric in prometheus_client.REGISTRY.collect():
        if metric.name.startswith("llm_") and metric.type in {"counter", "gauge"}:
            found[metric.name] = sum(sample.value for sample in metric.samples if not sample.name.endswith("_created"))
    return found
