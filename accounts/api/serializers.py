"""What the account endpoints take and answer."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework import serializers

from accounts import quota
from accounts.models import LedgerEntry, UsageRecord, User
from llmplatform.lib.api.serializers import StrictSerializer

LONGEST_PASSWORD = 1024
LANGUAGES = [code for code, _name in settings.LANGUAGES]
Kind = LedgerEntry.Kind

# -- users -----------------------------------------------------------------------------------------------------------


class BalanceSerializer(serializers.Serializer[Any]):
    available = serializers.IntegerField(help_text="micro-credits that can be spent")
    held = serializers.IntegerField(help_text="micro-credits set aside for requests under way")
    unlimited = serializers.BooleanField(help_text="usage is recorded, never refused")


class UserSerializer(serializers.Serializer[Any]):
    """An account and what it can spend. Amounts are whole micro-credits: 1 credit = 1,000,000."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    email = serializers.CharField()
    first_name = serializers.CharField()
    last_name = serializers.CharField()
    role = serializers.ChoiceField(["user", "operator", "admin"])
    language = serializers.CharField(help_text="empty: as the browser asks")
    must_change_password = serializers.BooleanField()
    balance = BalanceSerializer(source="wallet")

    def to_representation(self, instance: User) -> dict[str, Any]:
        instance.wallet = quota.ensure_wallet(instance)
        return super().to_representation(instance)


class ProfileSerializer(StrictSerializer):
    email = serializers.EmailField(required=False, allow_blank=True, max_length=254)
    language = serializers.ChoiceField(LANGUAGES, required=False, allow_blank=True)
    first_name = serializers.CharField(required=False, allow_blank=True, max_length=150)
    last_name = serializers.CharField(required=False, allow_blank=True, max_length=150)


class PasswordSerializer(StrictSerializer):
    old_password = serializers.CharField(max_length=LONGEST_PASSWORD, trim_whitespace=False)
    new_password = serializers.CharField(max_length=LONGEST_PASSWORD, trim_whitespace=False)


# -- tokens ----------------------------------------------------------------------------------------------------------


class RegisterSerializer(StrictSerializer):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=LONGEST_PASSWORD, trim_whitespace=False)
    email = serializers.EmailField(required=False, allow_blank=True, max_length=254)
    language = serializers.ChoiceField(LANGUAGES, required=False, allow_blank=True)
    invite = serializers.CharField(required=False, max_length=200, help_text="opens a closed registration")


class LoginSerializer(StrictSerializer):
    username = serializers.CharField(max_length=254, help_text="user name or email address")
    password = serializers.CharField(max_length=LONGEST_PASSWORD, trim_whitespace=False)
    otp = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=100,
        help_text="for accounts with a second factor: a code of the app, or a recovery code",
    )


class RefreshSerializer(StrictSerializer):
    refresh = serializers.CharField(max_length=4096)


class EmailSerializer(StrictSerializer):
    email = serializers.EmailField(max_length=254)


class ResetSerializer(StrictSerializer):
    uid = serializers.CharField(max_length=40)
    token = serializers.CharField(max_length=100)
    new_password = serializers.CharField(max_length=LONGEST_PASSWORD, trim_whitespace=False)


class TokensSerializer(serializers.Serializer[Any]):
    token = serializers.CharField(help_text="equals access")
    access = serializers.CharField()
    refresh = serializers.CharField()


class LoggedInSerializer(TokensSerializer):
    user = UserSerializer()


class WaitingSerializer(serializers.Serializer[Any]):
    """Registered, but an administrator has to approve the account before it can log in."""

    user = UserSerializer()
    message = serializers.CharField()


# -- credits and history -----------------------------------------------------------------------------------------------


class CreditsSerializer(StrictSerializer):
    amount = serializers.IntegerField(
        min_value=-quota.LARGEST_CHANGE,
        max_value=quota.LARGEST_CHANGE,
        help_text="micro-credits; a negative amount is a correction",
    )
    note = serializers.CharField(required=False, allow_blank=True, max_length=200, default="")


class RedeemSerializer(StrictSerializer):
    code = serializers.CharField(
        max_length=200, help_text="as it was given out; spaces, dashes and small letters do not matter"
    )


class RedeemedSerializer(serializers.Serializer[Any]):
    amount = serializers.IntegerField(help_text="micro-credits that were added")
    user = UserSerializer()


class MomentField(serializers.DateTimeField):
    """A time that every time zone and database can hold."""

    def to_internal_value(self, value: Any) -> Any:
        try:
            moment = super().to_internal_value(value)
        except OverflowError:
            self.fail("overflow")
        return moment if 1900 <= moment.year < 9000 else self.fail("overflow")


class HistoryQuery(StrictSerializer):
    since = MomentField(required=False, help_text="from this time on")
    until = MomentField(required=False, help_text="before this time")
    model = serializers.CharField(required=False, max_length=200)
    user = serializers.CharField(
        required=False, max_length=150, help_text="a user name; others than yourself: operators"
    )
    limit = serializers.IntegerField(required=False, min_value=1, max_value=1000, default=100)
    cursor = serializers.CharField(required=False, max_length=200, help_text="`next` of the page before")
    format = serializers.ChoiceField(
        ["json", "csv"], required=False, default="json", help_text="csv: all rows, no pages"
    )


class UsageQuery(HistoryQuery):
    key = serializers.IntegerField(required=False, min_value=1, max_value=2**62, help_text="id of a key")
    group = serializers.CharField(required=False, max_length=100, help_text="a group's name")


class LedgerQuery(HistoryQuery):
    kind = serializers.ChoiceField(Kind.values, required=False)


class UsageRow(serializers.Serializer[Any]):
    request_id = serializers.CharField()
    time = serializers.DateTimeField(source="created_at")
    user = serializers.CharField(source="username")
    key = serializers.IntegerField(source="key_id", allow_null=True, help_text="id of the key; null: without one")
    key_name = serializers.CharField(source="key.name", default="")
    group = serializers.CharField(
        source="group.name", default=None, allow_null=True, help_text="the user's at that time; null: none"
    )
    model = serializers.CharField(source="model_name")
    endpoint = serializers.CharField()
    source = serializers.CharField(help_text="api or chat")  # type: ignore[assignment]
    streamed = serializers.BooleanField()
    status = serializers.IntegerField()
    outcome = serializers.ChoiceField(UsageRecord.Outcome.values)
    prompt_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    cost = serializers.IntegerField(help_text="micro-credits")
    queue_ms = serializers.IntegerField()
    first_token_ms = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField()
    tokens_per_second = serializers.FloatField(allow_null=True)
    resumed = serializers.IntegerField(help_text="how often another replica went on with the answer")


class LedgerRow(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    time = serializers.DateTimeField(source="created_at")
    user = serializers.CharField(source="wallet.user.username")
    kind = serializers.ChoiceField(Kind.values)
    available_change = serializers.IntegerField()
    held_change = serializers.IntegerField()
    cost = serializers.IntegerField()
    request_id = serializers.CharField()
    model = serializers.CharField(source="model_name")
    note = serializers.CharField()


class UsagePage(serializers.Serializer[Any]):
    results = UsageRow(many=True)
    next = serializers.CharField(allow_null=True, help_text="cursor of the next page; null at the end")


class LedgerPage(serializers.Serializer[Any]):
    results = LedgerRow(many=True)
    next = serializers.CharField(allow_null=True, help_text="cursor of the next page; null at the end")
