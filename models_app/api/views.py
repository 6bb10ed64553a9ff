"""Models: what there is, what should be, and the log of each llama-server."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import SAFE_METHODS, BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.api.authentication import caller_in
from accounts.models import Scope
from cluster.log_following import follow
from cluster.log_reading import last_text_lines, plain_text
from llmplatform.lib.api.negotiation import FirstRenderer
from llmplatform.lib.api.permissions import IsOperator
from models_app import engine_logs, model_folder, selectors, services
from models_app.api.serializers import (
    EngineLogQuerySerializer,
    EngineLogsSerializer,
    ModelFieldsSerializer,
    ModelFilesSerializer,
    ModelListSerializer,
    ModelSerializer,
)
from models_app.config_file import FIELD_TO_KEY

TAG = ["models"]


def is_operator(request: Request) -> bool:
    return bool(request.user.is_staff or request.user.is_superuser)


def visible(request: Request, names: list[str] | None = None) -> list[dict[str, Any]]:
    """Operators see every model; others those of their group that should run, without what went wrong inside. A key sees only
    what it may use."""
    caller = caller_in(request)
    found = [model for model in selectors.model_dicts(names) if caller.may_use(*_names_of(model))]
    if is_operator(request):
        return found
    return [_public(model) for model in found if model["active"] and caller.sees(*_names_of(model))]


def _names_of(model: dict[str, Any]) -> tuple[str, ...]:
    return (model["modelName"], *model["aliases"])


def _public(model: dict[str, Any]) -> dict[str, Any]:
    """Without what went wrong inside, what the model is told, and the names of models that the reader may not see."""
    running = [{**replica, "error": None, "engine": ""} for replica in model["running"]]
    return {**model, "running": running, "systemPrompt": "", "traffic": {}}


def visible_model(request: Request, name: str) -> dict[str, Any]:
    """Raises ModelNotFound, also for a model this caller does not see."""
    found = visible(request, [name])
    if not found:
        raise services.ModelNotFound(name)
    return found[0]


def checked_fields(request: Request, *, partial: bool) -> dict[str, Any]:
    body = ModelFieldsSerializer(data=request.data, partial=partial)
    body.is_valid(raise_exception=True)
    fields: dict[str, Any] = body.validated_data
    return fields


def in_callers_names(error: ValidationError) -> ValidationError:
    """The services name our fields; callers know those of model_config.json."""
    if not hasattr(error, "error_dict"):
        return error
    return ValidationError({FIELD_TO_KEY.get(name, name): value for name, value in error.error_dict.items()})


class ModelsView(APIView):
    key_scopes = {"GET": Scope.MODELS_READ, "POST": Scope.MODELS_WRITE}

    def get_permissions(self) -> list[BasePermission]:
        return [IsAuthenticated() if self.request.method in SAFE_METHODS else IsOperator()]

    @extend_schema(
        tags=TAG,
        summary="The models you may use; for operators all",
        responses=ModelListSerializer,
        operation_id="models",
    )
    def get(self, request: Request) -> Response:
        return Response({"models": visible(request)})

    @extend_schema(
        tags=TAG,
        summary="Add a model",
        request=ModelFieldsSerializer,
        responses={201: ModelSerializer},
        operation_id="model_add",
    )
    def post(self, request: Request) -> Response:
        fields = checked_fields(request, partial=False)
        try:
            model = services.create_model(fields)
        except ValidationError as error:
            raise in_callers_names(error) from error
        return Response(visible_model(request, model.name), status=201)


class ModelView(APIView):
    key_scopes = {"GET": Scope.MODELS_READ, "PATCH": Scope.MODELS_WRITE, "DELETE": Scope.MODELS_WRITE}

    def get_permissions(self) -> list[BasePermission]:
        return [IsAuthenticated() if self.request.method in SAFE_METHODS else IsOperator()]

    @extend_schema(tags=TAG, summary="One model", responses=ModelSerializer, operation_id="model")
    def get(self, request: Request, name: str) -> Response:
        return Response(visible_model(request, name))

    @extend_schema(
        tags=TAG,
        summary="Change a model",
        description="Replicas are restarted when the change needs it.",
        request=ModelFieldsSerializer(partial=True),
        responses=ModelSerializer,
        operation_id="model_change",
    )
    def patch(self, request: Request, name: str) -> Response:
        fields = checked_fields(request, partial=True)
        try:
            services.update_model(name, fields)
        except ValidationError as error:
            raise in_callers_names(error) from error
        return Response(visible_model(request, name))

    @extend_schema(
        tags=TAG, summary="Remove a model (its file stays)", responses={204: None}, operation_id="model_remove"
    )
    def delete(self, request: Request, name: str) -> Response:
        services.delete_model(name)
        return Response(status=204)


class ModelFilesView(APIView):
    """Not below /models: a model may have any name."""

    permission_classes = [IsOperator]

    @extend_schema(
        tags=TAG,
        summary="The files of the models folder: what each is, or why it is rejected, and what fits on this machine",
        responses=ModelFilesSerializer,
        operation_id="model_files",
    )
    def get(self, request: Request) -> Response:
        found = [model_folder.file_object(file) for file in model_folder.files()]
        return Response({"usableMemory": model_folder.usable_memory(), "files": found})


class ModelLogsView(APIView):
    """llama-server's own log, as text lines."""

    permission_classes = [IsOperator]
    content_negotiation_class = FirstRenderer

    @extend_schema(
        tags=TAG,
        summary="The llama-server's own log",
        description="With `follow=1` the last lines of one replica and then what comes (server-sent events).",
        parameters=[EngineLogQuerySerializer],
        responses={
            (200, "application/json"): EngineLogsSerializer,
            (200, "text/event-stream"): OpenApiTypes.ANY,
        },
    )
    def get(self, request: Request, name: str) -> HttpResponseBase:
        visible_model(request, name)
        asked = EngineLogQuerySerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        wanted = asked.validated_data
        files = engine_logs.files_of(name)
        if wanted["replica"] is not None:
            files = {number: path for number, path in files.items() if number == wanted["replica"]}
        if not wanted["follow"]:
            lines = wanted["lines"]
            return Response(
                {"logs": [{"replica": n, "lines": last_text_lines(path, lines)} for n, path in files.items()]}
            )
        number, path = next(iter(files.items()), engine_logs.expected(name, wanted["replica"]))

        def entry(line: str) -> dict[str, Any]:
            return {"replica": number, "line": line}

        return follow(
            path,
            lambda position: [entry(line) for line in last_text_lines(path, wanted["lines"], position)],
            lambda line: entry(plain_text(line)),
        )
