"""People, groups and invites as administrators write and read them. Amounts are whole micro-credits."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts import people, quota
from accounts.api.serializers import BalanceSerializer
from accounts.models import Group, Invite, Period, User
from accounts.models.people import HEAVIEST
from llmplatform.lib.api.serializers import StrictSerializer

LARGEST = 2**31 - 1
LIMITS = {"rpm": "requests_per_minute", "tpm": "tokens_per_minute", "concurrent": "concurrent_requests"}


def _limit(**kwargs: Any) -> serializers.IntegerField:
    return serializers.IntegerField(required=False, min_value=0, max_value=LARGEST, **kwargs)


class PersonLimitsSerializer(StrictSerializer):
    """null: as the group says for each member; 0: no limit."""

    rpm = _limit(allow_null=True)
    tpm = _limit(allow_null=True)
    concurrent = _limit(allow_null=True)


class PersonChangesSerializer(StrictSerializer):
    role = serializers.ChoiceField(people.ROLES, required=False)
    group = serializers.CharField(
        required=False, allow_null=True, allow_blank=True, max_length=100, help_text="its name; null: none"
    )
    active = serializers.BooleanField(required=False, help_text="false: blocked, at once and everywhere")
    limits = PersonLimitsSerializer(required=False)

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        given: dict[str, Any] = super().to_internal_value(data)
        return given | {LIMITS[name]: value for name, value in given.pop("limits", {}).items()}


class PersonsQuery(StrictSerializer):
    q = serializers.CharField(required=False, max_length=150, help_text="part of the user name or email address")
    waiting = serializers.BooleanField(required=False, default=serializers.empty, help_text="waits for approval")
    group = serializers.CharField(required=False, allow_blank=True, max_length=100, help_text="its name; empty: none")
    after = serializers.CharField(required=False, max_length=150, help_text="`next` of the page before")
    limit = serializers.IntegerField(required=False, min_value=1, max_value=500, default=100)


class PersonLimitsAnswer(serializers.Serializer[Any]):
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    concurrent = serializers.IntegerField(allow_null=True)


class PersonSerializer(serializers.Serializer[Any]):
    """An account as administrators see it."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    email = serializers.CharField()
    role = serializers.ChoiceField(people.ROLES)
    group = serializers.CharField(allow_null=True)
    active = serializers.BooleanField()
    waiting = serializers.BooleanField(help_text="registered, and not approved yet")
    limits = PersonLimitsAnswer()
    created = serializers.DateTimeField()
    last_login = serializers.DateTimeField(allow_null=True)
    balance = BalanceSerializer()

    def to_representation(self, instance: User) -> dict[str, Any]:
        wallet = instance.wallet if hasattr(instance, "wallet") else quota.ensure_wallet(instance)
        return super().to_representation(
            {
                "id": instance.pk,
                "username": instance.username,
                "email": instance.email,
                "role": instance.role,
                "group": instance.group.name if instance.group else None,
                "active": instance.is_active,
                "waiting": instance.waiting,
                "limits": {name: getattr(instance, column) for name, column in LIMITS.items()},
                "created": instance.date_joined,
                "last_login": instance.last_login,
                "balance": wallet,
            }
        )


class PersonsPage(serializers.Serializer[Any]):
    results = PersonSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="`after` of the next page; null at the end")


# -- groups ------------------------------------------------------------------------------------------------------------


class GroupLimitsSerializer(StrictSerializer):
    """0: no limit."""

    rpm = _limit()
    tpm = _limit()
    concurrent = _limit()


class GroupFieldsSerializer(StrictSerializer):
    name = serializers.CharField(required=False, max_length=100)
    description = serializers.CharField(required=False, allow_blank=True, max_length=300)
    models = serializers.ListField(
        child=serializers.CharField(max_length=200), required=False, max_length=200, help_text="empty: all"
    )
    starting_balance = serializers.IntegerField(
        required=False, allow_null=True, min_value=0, max_value=quota.LARGEST_CHANGE, help_text="null: DEFAULT_TOKENS"
    )
    allowance = serializers.IntegerField(required=False, min_value=0, max_value=quota.LARGEST_CHANGE)
    allowance_period = serializers.ChoiceField(Period.values, required=False)
    limits = GroupLimitsSerializer(required=False, help_text="of all members together")
    member_limits = GroupLimitsSerializer(required=False, help_text="of each member")
    queue_weight = serializers.IntegerField(
        required=False,
        min_value=1,
        max_value=HEAVIEST,
        help_text="how much each member gets, by what others get, while all wait for slots",
    )

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        given: dict[str, Any] = super().to_internal_value(data)
        if "models" in given:
            given["allowed_models"] = given.pop("models")
        own, each = given.pop("limits", {}), given.pop("member_limits", {})
        return (
            given
            | {LIMITS[name]: value for name, value in own.items()}
            | {f"member_{LIMITS[name]}": value for name, value in each.items()}
        )


class NewGroupSerializer(GroupFieldsSerializer):
    name = serializers.CharField(max_length=100)


class GroupLimitsAnswer(serializers.Serializer[Any]):
    rpm = serializers.IntegerField()
    tpm = serializers.IntegerField()
    concurrent = serializers.IntegerField()


class GroupSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    models = serializers.ListField(child=serializers.CharField(), source="allowed_models")
    starting_balance = serializers.IntegerField(allow_null=True)
    allowance = serializers.IntegerField()
    allowance_period = serializers.ChoiceField(Period.values)
    limits = GroupLimitsAnswer()
    member_limits = GroupLimitsAnswer()
    queue_weight = serializers.IntegerField()

    def to_representation(self, instance: Group) -> dict[str, Any]:
        names = (
            "id", "name", "description", "allowed_models", "starting_balance", "allowance", "allowance_period",
            "queue_weight",
        )  # fmt: skip
        return super().to_representation(
            {name: getattr(instance, name) for name in names}
            | {
                "limits": {name: getattr(instance, column) for name, column in LIMITS.items()},
                "member_limits": {name: getattr(instance, f"member_{column}") for name, column in LIMITS.items()},
            }
        )


class GroupsSerializer(serializers.Serializer[Any]):
    groups = GroupSerializer(many=True)


# -- invites -----------------------------------------------------------------------------------------------------------


class NewInviteSerializer(StrictSerializer):
    group = serializers.CharField(required=False, allow_null=True, allow_blank=True, max_length=100)
    uses = serializers.IntegerField(required=False, min_value=1, max_value=10_000, default=1)
    expires = serializers.DateTimeField(required=False, allow_null=True)
    note = serializers.CharField(required=False, allow_blank=True, max_length=200, default="")


class InviteSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    last4 = serializers.CharField()
    note = serializers.CharField()
    group = serializers.CharField(allow_null=True)
    uses_left = serializers.IntegerField()
    expires = serializers.DateTimeField(allow_null=True)
    created = serializers.DateTimeField()

    def to_representation(self, instance: Invite) -> dict[str, Any]:
        return super().to_representation(
            {
                "id": instance.pk,
                "last4": instance.last4,
                "note": instance.note,
                "group": instance.group.name if instance.group else None,
                "uses_left": instance.uses_left,
                "expires": instance.expires_at,
                "created": instance.created_at,
            }
        )


class SecretInviteSerializer(InviteSerializer):
    code = serializers.CharField(help_text="told this once")


class InvitesSerializer(serializers.Serializer[Any]):
    invites = InviteSerializer(many=True)
