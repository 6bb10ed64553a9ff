"""Bodies and answers of the cluster and monitoring endpoints."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from cluster.log_reading import LEVELS
from cluster.models import Node
from llmplatform.lib.api.serializers import StrictSerializer


class JoinSerializer(StrictSerializer):
    id = serializers.RegexField(
        r"\A[\w-]{1,100}\Z", error_messages={"invalid": _("letters, digits, - and _ only, at most 100")}
    )
    host = serializers.CharField(max_length=253)
    port = serializers.IntegerField(min_value=1, max_value=65535)
    role = serializers.ChoiceField(choices=[Node.Role.WORKER.value], default=Node.Role.WORKER.value)


class HeartbeatSerializer(StrictSerializer):
    id = serializers.CharField(max_length=100)
    system = serializers.DictField(default=dict)


class NodeSerializer(serializers.Serializer[Any]):
    id = serializers.CharField()
    host = serializers.CharField()
    port = serializers.IntegerField()
    role = serializers.ChoiceField(choices=Node.Role.choices)
    drained = serializers.BooleanField(help_text="gets no new requests")
    alive = serializers.BooleanField(help_text="heard of within the last 15 seconds")
    serving = serializers.BooleanField(
        help_text="requests are sent there; not yet for machines that joined, which are listed and watched only"
    )
    joined = serializers.DateTimeField()
    last_seen = serializers.DateTimeField(allow_null=True)
    system = serializers.DictField()


class NodeListSerializer(serializers.Serializer[Any]):
    nodes = NodeSerializer(many=True)


class HeartbeatAnswerSerializer(serializers.Serializer[Any]):
    drained = serializers.BooleanField()
    serving = serializers.BooleanField()


class NodeCountsSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    alive = serializers.IntegerField()
    drained = serializers.IntegerField()


class SlotsSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    in_use = serializers.IntegerField()


class QueueSerializer(serializers.Serializer[Any]):
    waiting = serializers.IntegerField()
    under_way = serializers.IntegerField()


class TotalsSerializer(serializers.Serializer[Any]):
    requests_today = serializers.IntegerField()
    prompt_tokens_today = serializers.IntegerField()
    completion_tokens_today = serializers.IntegerField()


class ReplicasSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    ready = serializers.IntegerField()
    by_state = serializers.DictField(child=serializers.IntegerField())


class StatsSerializer(serializers.Serializer[Any]):
    nodes = NodeCountsSerializer()
    replicas = ReplicasSerializer()
    slots = SlotsSerializer()
    queue = QueueSerializer()
    tokens_per_second = serializers.FloatField()
    totals = TotalsSerializer()


class LogQuerySerializer(StrictSerializer):
    """The query string of ``/api/v1/logs``."""

    level = serializers.ChoiceField(choices=list(LEVELS), default="", help_text="this level and worse")
    # the base class has an attribute of that name; DRF takes declared fields out of the class
    source = serializers.CharField(  # type: ignore[assignment]
        max_length=40, default="", help_text="web, supervisor, serve or command"
    )
    q = serializers.CharField(max_length=200, default="", help_text="text to look for, taken literally")
    since = serializers.DateTimeField(default=None, help_text="ISO 8601")
    lines = serializers.IntegerField(min_value=1, max_value=5000, default=200)
    follow = serializers.BooleanField(default=False, help_text="1: go on as server-sent events")


class LogAnswerSerializer(serializers.Serializer[Any]):
    entries = serializers.ListField(child=serializers.DictField())
