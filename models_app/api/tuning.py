"""Tuning: ask for it, see how far it is and what it found, stop it. The supervisor carries it out."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import Scope
from llmplatform.lib.api.permissions import IsOperator
from llmplatform.lib.api.serializers import StrictSerializer
from models_app.api.views import visible_model
from models_app.models import TuningRun
from models_app.tuning import runs, words


class TuningWishSerializer(StrictSerializer):
    aim = serializers.ChoiceField(choices=TuningRun.Aim.choices, default=TuningRun.Aim.THROUGHPUT)
    clients = serializers.IntegerField(min_value=1, max_value=runs.MOST_CLIENTS, default=4, help_text="people at once")
    seconds = serializers.IntegerField(
        min_value=runs.SHORTEST, max_value=runs.LONGEST, default=240, help_text="longest time"
    )
    apply = serializers.BooleanField(default=False, help_text="use the result")


class TuningRowSerializer(serializers.Serializer[Any]):
    settings = serializers.DictField()
    tokensPerSecond = serializers.FloatField(help_text="of all answers together")
    slowest = serializers.FloatField(help_text="tokens per second of the one who waited longest")
    memory = serializers.IntegerField(help_text="bytes")
    runs = serializers.IntegerField(help_text="measurements")
    problem = serializers.DictField(allow_null=True)


class TuningSerializer(TuningWishSerializer):
    id = serializers.IntegerField()
    modelName = serializers.CharField()
    state = serializers.ChoiceField(choices=TuningRun.Stage.choices)
    progress = serializers.FloatField(help_text="0 to 1")
    machine = serializers.DictField(help_text="processor, cores, memory: what the result holds for")
    engine = serializers.CharField()
    before = serializers.DictField(help_text="settings at its beginning")
    chosen = serializers.DictField(help_text="the best settings; empty while it is not finished")
    gain = serializers.FloatField(allow_null=True, help_text="1: llama-server's defaults were best")
    busy = serializers.FloatField(help_text="share of the processor that other work took")
    applied = serializers.BooleanField()
    rows = TuningRowSerializer(many=True)
    summary = serializers.ListField(child=serializers.CharField())
    created = serializers.DateTimeField()
    finished = serializers.DateTimeField(allow_null=True)


class TuningListSerializer(serializers.Serializer[Any]):
    tuning = TuningSerializer(many=True)


def as_dict(run: TuningRun) -> dict[str, Any]:
    return runs.run_dict(run, words.sentences(run))


class TuningView(APIView):
    permission_classes = [IsOperator]
    key_scopes = {"GET": Scope.MODELS_READ, "POST": Scope.MODELS_WRITE, "DELETE": Scope.MODELS_WRITE}

    @extend_schema(tags=["models"], summary="Tunings of a model, the newest first", responses=TuningListSerializer)
    def get(self, request: Request, name: str) -> Response:
        visible_model(request, name)
        return Response({"tuning": [as_dict(run) for run in TuningRun.objects.filter(model_name=name)]})

    @extend_schema(
        tags=["models"],
        summary="Measure which settings are best",
        description="Carried out by the supervisor, one model at a time.",
        request=TuningWishSerializer,
        responses={202: TuningSerializer},
    )
    def post(self, request: Request, name: str) -> Response:
        visible_model(request, name)
        wish = TuningWishSerializer(data=request.data)
        wish.is_valid(raise_exception=True)
        return Response(as_dict(runs.want(name, **wish.validated_data)), status=202)

    @extend_schema(tags=["models"], summary="Stop a tuning", responses={202: None, 204: None})
    def delete(self, request: Request, name: str) -> Response:
        visible_model(request, name)
        return Response(status=202 if runs.ask_to_stop(name) else 204)
