"""Bodies and answers of the model endpoints. What a value may be is told once, in ``models_app.config_file.KEYS``."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers

from llmplatform.lib.api.serializers import StrictSerializer
from models_app.config_file import KEYS, BadValue
from models_app.models import ModelConfig
from models_app.states import State

MAX_WAIT = 300


class ModelFieldsSerializer(StrictSerializer):
    """The settings of a model under the names of model_config.json; any subset of them in a PATCH."""

    modelName = serializers.CharField(max_length=128, help_text="letters, digits and . _ : -")
    modelFile = serializers.CharField(max_length=255)
    modelPath = serializers.CharField(max_length=1000, required=False, default="models/")
    contextLength = serializers.IntegerField(allow_null=True, required=False, help_text="null: chosen for the machine")
    maxTokens = serializers.IntegerField(required=False, default=2048)
    temperature = serializers.FloatField(required=False, default=0.7)
    topP = serializers.FloatField(required=False, default=0.8)
    repeatPenalty = serializers.FloatField(required=False, default=1.1)
    threads = serializers.IntegerField(allow_null=True, required=False, help_text="null: chosen for the machine")
    gpuLayers = serializers.IntegerField(required=False, default=0)
    active = serializers.BooleanField(required=False, default=True, help_text="should run")
    description = serializers.CharField(required=False, allow_blank=True, default="")
    replicas = serializers.IntegerField(required=False, default=1, help_text="wanted")
    slots = serializers.IntegerField(required=False, default=2, help_text="requests at once in each replica")
    policy = serializers.ChoiceField(choices=ModelConfig.Policy.choices, required=False, default="always")
    embeddings = serializers.BooleanField(required=False, default=False)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Values by the names of ModelConfig's fields; only those that were given."""
        if not isinstance(data, dict):
            raise serializers.ValidationError({"body": [_("Send a JSON object.")]})
        values: dict[str, Any] = {}
        errors: dict[str, list[str]] = {}
        for name, value in data.items():
            if name not in KEYS:
                errors[name] = [_("Unknown field.")]
                continue
            try:
                values[KEYS[name].field] = KEYS[name].check(value)
            except BadValue as error:
                errors[name] = [str(error)]
        if not self.partial:
            errors |= {name: [_("Is needed.")] for name in ("modelName", "modelFile") if name not in data}
        if errors:
            raise serializers.ValidationError(errors)
        return values


class RunningSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    node = serializers.CharField()
    state = serializers.ChoiceField(choices=State.choices)
    since = serializers.DateTimeField()
    error = serializers.CharField(allow_null=True, help_text="for operators only")


class ModelSerializer(ModelFieldsSerializer):
    state = serializers.ChoiceField(choices=State.choices)
    running = RunningSerializer(many=True)
    gguf = serializers.DictField(help_text="what the file says about itself; empty when it cannot be read")
    memory = serializers.DictField(help_text="bytes one replica needs; empty when that is not known")


class ModelListSerializer(serializers.Serializer[Any]):
    models = ModelSerializer(many=True)


class WaitSerializer(StrictSerializer):
    """The query string of start, stop and restart."""

    wait = serializers.FloatField(
        min_value=0,
        max_value=MAX_WAIT,
        default=0,
        help_text="seconds to wait for the state; 504 when it is not reached",
    )


class WantedSerializer(serializers.Serializer[Any]):
    modelName = serializers.CharField()
    wanted = serializers.ChoiceField(choices=[State.READY.value, State.STOPPED.value])
    state = serializers.ChoiceField(choices=State.choices)


class EngineLogQuerySerializer(StrictSerializer):
    """The query string of ``/api/v1/models/{name}/logs``."""

    lines = serializers.IntegerField(min_value=1, max_value=5000, default=200)
    replica = serializers.IntegerField(min_value=0, max_value=64, default=None, help_text="all replicas when left out")
    follow = serializers.BooleanField(default=False, help_text="1: go on as server-sent events")


class ReplicaLogSerializer(serializers.Serializer[Any]):
    replica = serializers.IntegerField()
    lines = serializers.ListField(child=serializers.CharField())


class EngineLogsSerializer(serializers.Serializer[Any]):
    logs = ReplicaLogSerializer(many=True)
