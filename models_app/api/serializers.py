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


class AdapterSerializer(serializers.Serializer[Any]):
    file = serializers.CharField(max_length=255)
    scale = serializers.FloatField(required=False, default=1.0)


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
    ttl = serializers.IntegerField(
        allow_null=True,
        required=False,
        help_text="on demand: seconds without requests until it is unloaded; null: ON_DEMAND_TTL",
    )
    pinned = serializers.BooleanField(required=False, default=False, help_text="on demand: makes no room for others")
    group = serializers.CharField(
        required=False, allow_blank=True, default="", help_text="on demand: one of a group is loaded at a time"
    )
    embeddings = serializers.BooleanField(required=False, default=False)
    rerank = serializers.BooleanField(required=False, default=False)
    batchThreads = serializers.IntegerField(allow_null=True, required=False, help_text="for prompts; null: as threads")
    ubatchSize = serializers.IntegerField(allow_null=True, required=False, help_text="prompt tokens computed at once")
    cacheType = serializers.ChoiceField(
        choices=ModelConfig.CacheType.choices, required=False, default="f16", help_text="of the context in memory"
    )
    flashAttention = serializers.ChoiceField(choices=ModelConfig.Switch.choices, required=False, default="auto")
    promptCache = serializers.IntegerField(required=False, default=256, help_text="MiB for prompts read before")
    speculative = serializers.ChoiceField(choices=ModelConfig.Speculative.choices, required=False, default="off")
    draftFile = serializers.CharField(required=False, allow_blank=True, default="", help_text="a small model to guess")
    mmprojFile = serializers.CharField(required=False, allow_blank=True, default="", help_text="vision projector")
    loraAdapters = AdapterSerializer(many=True, required=False, default=list)
    chatTemplate = serializers.CharField(
        required=False, allow_blank=True, default="", help_text="Jinja; empty: the model's own"
    )
    cores = serializers.CharField(
        allow_null=True, required=False, help_text="processors such as 0-7,16-23; null: chosen for the machine"
    )
    numa = serializers.ChoiceField(choices=ModelConfig.Numa.choices, required=False, default="off")
    aliases = serializers.ListField(
        child=serializers.CharField(max_length=128), required=False, default=list, help_text="other names for it"
    )
    default = serializers.BooleanField(
        required=False, default=False, help_text="answers requests that name no model; the one before no longer does"
    )
    systemPrompt = serializers.CharField(
        required=False, allow_blank=True, default="", help_text="for chats without one; shown to operators only"
    )
    traffic = serializers.DictField(
        child=serializers.IntegerField(min_value=0, max_value=100),
        required=False,
        default=dict,
        help_text="percent of its requests that another model answers, by name; shown to operators only",
    )

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


class RunningMemorySerializer(serializers.Serializer[Any]):
    planned = serializers.IntegerField(allow_null=True, help_text="bytes, after the first long request")
    measured = serializers.IntegerField(allow_null=True, help_text="bytes, seen last; null until then")


class RunningSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    node = serializers.CharField()
    state = serializers.ChoiceField(choices=State.choices)
    since = serializers.DateTimeField()
    error = serializers.CharField(allow_null=True, help_text="for operators only")
    engine = serializers.CharField(help_text="the build of llama-server that it runs; for operators only")
    memory = RunningMemorySerializer()


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


class FileErrorSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    message = serializers.CharField()


class FitSerializer(serializers.Serializer[Any]):
    contextLength = serializers.IntegerField(help_text="of each slot")
    slots = serializers.IntegerField()
    cacheType = serializers.CharField()
    memory = serializers.IntegerField(help_text="bytes that must be free for a start")
    fits = serializers.BooleanField(help_text="now, with the other models that run")


class ModelFileSerializer(serializers.Serializer[Any]):
    file = serializers.CharField(help_text="seen from the models folder")
    size = serializers.IntegerField(help_text="bytes, of all parts")
    error = FileErrorSerializer(allow_null=True, help_text="why it is rejected")
    gguf = serializers.DictField(help_text="what the file says about itself; empty when it is rejected")
    fits = FitSerializer(many=True)


class ModelFilesSerializer(serializers.Serializer[Any]):
    usableMemory = serializers.IntegerField(help_text="bytes that a new replica may take now")
    files = ModelFileSerializer(many=True)
