"""API keys as callers write and read them. What is possible is decided by accounts.keys."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.models import ApiKey, Period, Priority, Scope
from llmplatform.lib.api.serializers import StrictSerializer

# Names of the API → columns.
LIMITS = {"rpm": "requests_per_minute", "tpm": "tokens_per_minute", "concurrent": "concurrent_requests"}
COLUMNS = {"models": "allowed_models", "addresses": "allowed_addresses", "expires": "expires_at"}
PERIODS = ["", *Period.values]


class KeyLimitsSerializer(StrictSerializer):
    rpm = serializers.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1, help_text="requests a minute; 0: any"
    )
    tpm = serializers.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1, help_text="tokens a minute; 0: any"
    )
    concurrent = serializers.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1, help_text="requests at once; 0: any"
    )
    budget = serializers.IntegerField(
        required=False, allow_null=True, min_value=0, max_value=10**15, help_text="micro-credits; null: no budget"
    )
    budget_period = serializers.ChoiceField(PERIODS, required=False, help_text="empty: it never begins anew")


class KeyChangesSerializer(StrictSerializer):
    name = serializers.CharField(required=False, max_length=100)
    scopes = serializers.ListField(child=serializers.ChoiceField(Scope.values), required=False, allow_empty=False)
    models = serializers.ListField(
        child=serializers.CharField(max_length=200), required=False, max_length=200, help_text="empty: all"
    )
    addresses = serializers.ListField(
        child=serializers.CharField(max_length=50),
        required=False,
        max_length=200,
        help_text="CIDR; empty: from anywhere",
    )
    expires = serializers.DateTimeField(required=False, allow_null=True)
    priority = serializers.ChoiceField(
        Priority.values, required=False, help_text="batch: waits until no interactive request does"
    )
    limits = KeyLimitsSerializer(required=False)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """By the names of accounts.keys.NewKey."""
        given: dict[str, Any] = super().to_internal_value(data)
        limits = given.pop("limits", {})
        return {COLUMNS.get(name, name): value for name, value in given.items()} | {
            LIMITS.get(name, name): value for name, value in limits.items()
        }


class NewKeySerializer(KeyChangesSerializer):
    name = serializers.CharField(max_length=100)


class RotateSerializer(StrictSerializer):
    overlap_seconds = serializers.IntegerField(required=False, default=0, min_value=0, max_value=90 * 86400)


class KeyQuery(StrictSerializer):
    user = serializers.CharField(
        required=False, max_length=150, help_text="a user name; `*`: everybody; administrators"
    )
    ended = serializers.BooleanField(required=False, default=False, help_text="revoked ones too")
    limit = serializers.IntegerField(required=False, min_value=1, max_value=1000, default=200)


class KeyLimitsAnswer(serializers.Serializer[Any]):
    rpm = serializers.IntegerField()
    tpm = serializers.IntegerField()
    concurrent = serializers.IntegerField()
    budget = serializers.IntegerField(allow_null=True)
    budget_period = serializers.ChoiceField(PERIODS)
    budget_used = serializers.IntegerField(help_text="held or spent in the present period, by rotations of the key too")


class KeySerializer(serializers.Serializer[Any]):
    """An API key without its secret. Amounts are whole micro-credits."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    owner = serializers.CharField()
    prefix = serializers.CharField()
    last4 = serializers.CharField()
    scopes = serializers.ListField(child=serializers.ChoiceField(Scope.values))
    models = serializers.ListField(child=serializers.CharField())
    addresses = serializers.ListField(child=serializers.CharField())
    expires = serializers.DateTimeField(allow_null=True)
    priority = serializers.ChoiceField(Priority.values)
    limits = KeyLimitsAnswer()
    created = serializers.DateTimeField()
    last_used = serializers.DateTimeField(allow_null=True)
    revoked = serializers.DateTimeField(allow_null=True)

    def to_representation(self, instance: ApiKey) -> dict[str, Any]:
        limits = {name: getattr(instance, column) for name, column in LIMITS.items()}
        budget = {
            "budget": instance.budget,
            "budget_period": instance.budget_period,
            "budget_used": instance.holder.budget_used,
        }
        return super().to_representation(
            {
                "id": instance.pk,
                "name": instance.name,
                "owner": instance.user.username,
                "prefix": instance.prefix,
                "last4": instance.last4,
                "scopes": instance.scopes,
                "models": instance.allowed_models,
                "addresses": instance.allowed_addresses,
                "expires": instance.expires_at,
                "priority": instance.priority,
                "limits": limits | budget,
                "created": instance.created_at,
                "last_used": instance.last_used_at,
                "revoked": instance.revoked_at,
            }
        )


class SecretKeySerializer(KeySerializer):
    key = serializers.CharField(help_text="the key itself, told this once")


class KeysSerializer(serializers.Serializer[Any]):
    keys = KeySerializer(many=True)
