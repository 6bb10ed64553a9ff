"""Getting models: downloads, the catalogue, uploads in pieces. Operators only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import Scope
from llmplatform.lib.api.permissions import IsOperator
from llmplatform.lib.api.serializers import StrictSerializer, answers
from models_app.downloads import catalogue, selectors, services, uploads
from models_app.downloads.hubs import HUBS
from models_app.downloads.models import Download
from models_app.downloads.services import Wish

TAG = ["downloads"]
READ_AND_WRITE = {
    "GET": Scope.MODELS_WRITE,
    "POST": Scope.MODELS_WRITE,
    "PUT": Scope.MODELS_WRITE,
    "DELETE": Scope.MODELS_WRITE,
}
LARGEST_FILE = 2**43  # 8 TB


class WishSerializer(StrictSerializer):
    source = serializers.CharField(  # type: ignore[assignment]  # Field has an attribute of this name
        max_length=2000, help_text="OWNER/REPOSITORY, OWNER/REPOSITORY:FILE-or-quantisation, or an address"
    )
    hub = serializers.ChoiceField(choices=["auto", *HUBS], default="auto")
    modelName = serializers.CharField(
        max_length=128, required=False, default="", help_text="make a model of this name of it"
    )


class DownloadSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    source = serializers.CharField()  # type: ignore[assignment]
    origin = serializers.CharField()
    hub = serializers.CharField(allow_null=True)
    files = serializers.ListField(child=serializers.CharField())
    licence = serializers.CharField(allow_null=True)
    state = serializers.CharField(help_text="waiting, looking, fetching, checking; then done, failed or cancelled")
    cancelled = serializers.BooleanField(help_text="somebody asked for its end")
    size = serializers.IntegerField(allow_null=True, help_text="bytes")
    fetched = serializers.IntegerField(help_text="bytes")
    speed = serializers.IntegerField(help_text="bytes per second")
    reason = serializers.CharField(allow_null=True, help_text="why it failed or waits, for people")
    code = serializers.CharField(allow_null=True, help_text="the same, stable")
    modelName = serializers.CharField(allow_null=True)
    created = serializers.DateTimeField()
    changed = serializers.DateTimeField()


class DownloadListSerializer(serializers.Serializer[Any]):
    downloads = DownloadSerializer(many=True)


class OfferSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    kind = serializers.CharField(help_text="chat, embedding or rerank")
    source = serializers.CharField(help_text="for a POST to /api/v1/downloads")  # type: ignore[assignment]
    huggingface = serializers.CharField(allow_null=True)
    modelscope = serializers.CharField(allow_null=True)
    file = serializers.CharField()
    size = serializers.IntegerField(allow_null=True, help_text="bytes")
    sha256 = serializers.CharField(allow_null=True)
    licence = serializers.CharField(allow_null=True)
    parameters = serializers.FloatField(allow_null=True, help_text="billions")
    contextLength = serializers.IntegerField(allow_null=True)
    languages = serializers.ListField(child=serializers.CharField())
    memoryNeeded = serializers.IntegerField(allow_null=True, help_text="bytes, with 2 x 4096 tokens of context")
    memoryExact = serializers.BooleanField(help_text="false: without the context, whose size is not known")
    fits = serializers.BooleanField(allow_null=True, help_text="into the memory that is free now")


class CatalogueSerializer(serializers.Serializer[Any]):
    models = OfferSerializer(many=True)


class NewUploadSerializer(StrictSerializer):
    fileName = serializers.CharField(max_length=255, help_text="ends in .gguf")
    size = serializers.IntegerField(min_value=1, max_value=LARGEST_FILE, help_text="bytes")
    sha256 = serializers.CharField(max_length=64, required=False, default="", help_text="checked when it is all there")


class UploadSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    fileName = serializers.CharField()
    size = serializers.IntegerField()
    offset = serializers.IntegerField(help_text="number of the next byte that is wanted")
    chunkSize = serializers.IntegerField(help_text="most bytes of one piece")


class OffsetSerializer(StrictSerializer):
    """The query string of a piece."""

    offset = serializers.IntegerField(min_value=0, max_value=LARGEST_FILE)


class FinishSerializer(StrictSerializer):
    modelName = serializers.CharField(max_length=128, required=False, default="")


class RawParser(BaseParser):
    """The body as it comes, whatever it is called."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        return stream


class OperatorView(APIView):
    permission_classes = [IsOperator]
    key_scopes = READ_AND_WRITE


class DownloadsView(OperatorView):
    @extend_schema(tags=TAG, summary="The latest downloads", responses=DownloadListSerializer, operation_id="downloads")
    def get(self, request: Request) -> Response:
        return Response({"downloads": [selectors.shown(one) for one in selectors.recent()]})

    @extend_schema(
        tags=TAG,
        summary="Fetch a model",
        description="201, or 200 when this very thing is being fetched already. The supervisor does it.",
        request=WishSerializer,
        responses=answers({201: DownloadSerializer, 200: DownloadSerializer}, 400, 409),
        operation_id="download_add",
    )
    def post(self, request: Request) -> Response:
        body = WishSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = body.validated_data
        download, new = services.pull(Wish(wanted["source"], wanted["hub"], wanted["modelName"]))
        return Response(selectors.shown(download), status=201 if new else 200)


class DownloadView(OperatorView):
    @extend_schema(tags=TAG, summary="One download", responses=DownloadSerializer, operation_id="download")
    def get(self, request: Request, download_id: int) -> Response:
        return Response(selectors.shown(get_object_or_404(Download, pk=download_id)))

    @extend_schema(
        tags=TAG,
        summary="Cancel a download",
        description="What came of it is deleted. A finished one cannot be cancelled.",
        responses=answers({202: DownloadSerializer}, 404, 409),
        operation_id="download_cancel",
    )
    def delete(self, request: Request, download_id: int) -> Response:
        return Response(selectors.shown(services.cancel(download_id)), status=202)


class RetryView(OperatorView):
    @extend_schema(
        tags=TAG,
        summary="Go on with a download that failed or was cancelled",
        request=None,
        responses=answers({202: DownloadSerializer}, 404, 409),
        operation_id="download_retry",
    )
    def post(self, request: Request, download_id: int) -> Response:
        return Response(selectors.shown(services.retry(download_id)), status=202)


class CatalogueView(OperatorView):
    @extend_schema(
        tags=TAG,
        summary="Recommended models, what fits into memory first",
        responses=CatalogueSerializer,
        operation_id="catalogue",
    )
    def get(self, request: Request) -> Response:
        return Response({"models": [catalogue.shown(offer) for offer in catalogue.offers()]})


def _upload(upload: uploads.Upload) -> dict[str, Any]:
    return {
        "id": upload.id,
        "fileName": upload.file,
        "size": upload.size,
        "offset": upload.offset,
        "chunkSize": uploads.CHUNK,
    }


class UploadsView(OperatorView):
    @extend_schema(
        tags=TAG,
        summary="Begin to upload a GGUF file",
        request=NewUploadSerializer,
        responses=answers({201: UploadSerializer}, 400, 409, 507),
        operation_id="upload_add",
    )
    def post(self, request: Request) -> Response:
        body = NewUploadSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        wanted = body.validated_data
        return Response(_upload(uploads.begin(wanted["fileName"], wanted["size"], wanted["sha256"])), status=201)


class UploadView(OperatorView):
    def get_parsers(self) -> list[BaseParser]:
        return [RawParser()]

    @extend_schema(tags=TAG, summary="How far an upload is", responses=UploadSerializer, operation_id="upload")
    def get(self, request: Request, upload_id: str) -> Response:
        return Response(_upload(uploads.get(upload_id)))

    @extend_schema(
        tags=TAG,
        summary="The next piece of an upload",
        description="The body is the bytes themselves. 409 `wrong_offset` says where to go on.",
        request={"application/octet-stream": OpenApiTypes.BINARY},
        parameters=[OffsetSerializer],
        responses=answers({200: UploadSerializer}, 404, 409, 413, 507),
        operation_id="upload_piece",
    )
    def put(self, request: Request, upload_id: str) -> Response:
        asked = OffsetSerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        return Response(_upload(uploads.append(upload_id, asked.validated_data["offset"], request.stream)))

    @extend_schema(
        tags=TAG, summary="Give an upload up", responses=answers({204: None}, 404), operation_id="upload_cancel"
    )
    def delete(self, request: Request, upload_id: str) -> Response:
        uploads.cancel(upload_id)
        return Response(status=204)


class FinishView(OperatorView):
    @extend_schema(
        tags=TAG,
        summary="All of it is there: check it and put it among the models",
        request=FinishSerializer,
        responses=answers({202: DownloadSerializer}, 404, 409),
        operation_id="upload_finish",
    )
    def post(self, request: Request, upload_id: str) -> Response:
        body = FinishSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        upload = uploads.get(upload_id)
        wish = Wish(upload.file, model_name=body.validated_data["modelName"])
        return Response(selectors.shown(uploads.finish(upload_id, wish)), status=202)
