"""The service's own log, for operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cluster.api.serializers import LogAnswerSerializer, LogQuerySerializer
from cluster.log_following import follow
from cluster.log_reading import LogQuery, parse_line, recent
from llmplatform.lib.api.negotiation import FirstRenderer
from llmplatform.lib.api.permissions import IsOperator


def log_path() -> Path:
    return Path(settings.LOG_DIR) / "llm-app.log"


class LogsView(APIView):
    permission_classes = [IsOperator]
    content_negotiation_class = FirstRenderer

    @extend_schema(
        tags=["monitoring"],
        summary="The service's log",
        description="The last entries that match, oldest first; with `follow=1` then also what comes (server-sent events).",
        parameters=[LogQuerySerializer],
        responses={
            (200, "application/json"): LogAnswerSerializer,
            (200, "text/event-stream"): OpenApiTypes.ANY,
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        asked = LogQuerySerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        wanted = asked.validated_data
        query = LogQuery(wanted["level"], wanted["source"], wanted["q"], wanted["since"])
        path = log_path()
        if not wanted["follow"]:
            return Response({"entries": recent(path, query, wanted["lines"])})

        def show(line: bytes) -> dict[str, Any] | None:
            entry = parse_line(line)
            return entry if query.matches(entry) else None

        return follow(path, lambda position: recent(path, query, wanted["lines"], position), show)
