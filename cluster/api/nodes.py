"""Machines: what there is, who joins, who gets no more requests."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cluster import live, probe, selectors, services
from cluster.api.authentication import MACHINES_AND_PEOPLE, IsMachine, IsOperatorOrMachine, Machine
from cluster.api.serializers import (
    HeartbeatAnswerSerializer,
    HeartbeatSerializer,
    JoinSerializer,
    NodeListSerializer,
    NodeSerializer,
    StatsSerializer,
)
from llmplatform.lib.api.permissions import IsOperator

TAG = ["cluster"]


def stats() -> dict[str, Any]:
    """Nodes from our table, the rest from whoever registered it in ``cluster.live``."""
    replicas, gateway, usage = (live.figures(name) for name in ("replicas", "gateway", "usage"))
    by_state = replicas.get("by_state", {})
    return {
        "nodes": selectors.node_counts(),
        "replicas": {"total": sum(by_state.values()), "ready": by_state.get("ready", 0), "by_state": by_state},
        "slots": {"total": replicas.get("slots", 0), "in_use": gateway.get("slots_in_use", 0)},
        "queue": {"waiting": gateway.get("queued", 0), "under_way": gateway.get("requests_under_way", 0)},
        "tokens_per_second": round(float(usage.get("tokens_per_second", 0.0)), 2),
        "totals": {
            name: usage.get(name, 0) for name in ("requests_today", "prompt_tokens_today", "completion_tokens_today")
        },
    }


class StatsView(APIView):
    key_scopes = {"GET": "models:read"}

    @extend_schema(tags=TAG, summary="The service in numbers", responses=StatsSerializer)
    def get(self, request: Request) -> Response:
        return Response(stats())


class NodesView(APIView):
    permission_classes = [IsOperator]

    @extend_schema(tags=TAG, summary="The machines", responses=NodeListSerializer)
    def get(self, request: Request) -> Response:
        return Response({"nodes": [selectors.node_dict(node) for node in selectors.nodes()]})


class NodeView(APIView):
    permission_classes = [IsOperator]

    @extend_schema(tags=TAG, summary="Remove a machine (not the master)", responses={204: None})
    def delete(self, request: Request, node_id: str) -> Response:
        services.remove(node_id)
        return Response(status=204)


class DrainView(APIView):
    permission_classes = [IsOperator]

    @extend_schema(tags=TAG, summary="No new requests for a machine", request=None, responses=NodeSerializer)
    def post(self, request: Request, node_id: str) -> Response:
        return Response(selectors.node_dict(services.drain(node_id)))


class ResumeView(APIView):
    permission_classes = [IsOperator]

    @extend_schema(tags=TAG, summary="New requests again", request=None, responses=NodeSerializer)
    def post(self, request: Request, node_id: str) -> Response:
        return Response(selectors.node_dict(services.resume(node_id)))


class JoinView(APIView):
    authentication_classes = MACHINES_AND_PEOPLE
    permission_classes = [IsOperatorOrMachine]

    @extend_schema(
        tags=TAG,
        summary="Add a machine that runs its own llama-server",
        description="By an operator, or by the machine itself with CLUSTER_TOKEN. The llama-server must answer /health. "
        "The machine is listed and watched; requests are not sent there yet (`serving` is false).",
        request=JoinSerializer,
        responses={201: NodeSerializer, 200: NodeSerializer},
    )
    def post(self, request: Request) -> Response:
        body = JoinSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = body.validated_data
        probe.probe(wanted["host"], wanted["port"], loopback=not isinstance(request.user, Machine))
        node, created = services.join(wanted["id"], wanted["host"], wanted["port"], wanted["role"])
        return Response(selectors.node_dict(node), status=201 if created else 200)


class HeartbeatView(APIView):
    authentication_classes = MACHINES_AND_PEOPLE
    permission_classes = [IsMachine]

    @extend_schema(
        tags=TAG,
        summary="A machine lives and tells its figures",
        request=HeartbeatSerializer,
        responses=HeartbeatAnswerSerializer,
    )
    def post(self, request: Request) -> Response:
        body = HeartbeatSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        node = services.heartbeat(body.validated_data["id"], body.validated_data["system"], joined_only=True)
        shown = selectors.node_dict(node)
        return Response({"drained": shown["drained"], "serving": shown["serving"]})
