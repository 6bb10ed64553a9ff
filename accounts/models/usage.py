"""What was used: one record a request, and sums by the hour. Written by ``accounts.quota`` only."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from accounts.models.keys import ApiKey
from accounts.models.people import Group, User


class UsageRecord(models.Model):
    """One inference request and what became of it. Never its text."""

    class Outcome(models.TextChoices):
        COMPLETED = "completed", _("completed")
        CANCELLED = "cancelled", _("stopped by the client")
        FAILED = "failed", _("failed")
        REFUSED = "refused", _("refused")

    request_id = models.CharField(_("request"), max_length=64, unique=True)
    user = models.ForeignKey(
        User,
        null=True,
        on_delete=models.SET_NULL,
        related_name="usage",
        verbose_name=_("user"),
        db_index=False,
    )
    username = models.CharField(_("user name"), max_length=150, blank=True, default="")
    key = models.ForeignKey(
        ApiKey, null=True, on_delete=models.PROTECT, related_name="usage", verbose_name=_("API key"), db_index=False
    )
    group = models.ForeignKey(
        Group, null=True, on_delete=models.SET_NULL, related_name="+", verbose_name=_("group"), db_index=False
    )
    model_name = models.CharField(_("model"), max_length=200)
    endpoint = models.CharField(_("endpoint"), max_length=40)
    source = models.CharField(_("source"), max_length=16, default="api")  # api, chat
    replica = models.CharField(_("replica"), max_length=220, blank=True, default="")
    streamed = models.BooleanField(_("streamed"), default=False)
    status = models.PositiveSmallIntegerField(_("status"))
    outcome = models.CharField(_("outcome"), max_length=16, choices=Outcome)
    prompt_tokens = models.PositiveIntegerField(_("prompt tokens"), default=0)
    cached_tokens = models.PositiveIntegerField(_("of these from the cache"), default=0)
    completion_tokens = models.PositiveIntegerField(_("answer tokens"), default=0)
    cost = models.BigIntegerField(_("cost"), default=0)
    queue_ms = models.PositiveIntegerField(_("waited (ms)"), default=0)
    first_token_ms = models.PositiveIntegerField(_("time to first token (ms)"), null=True)
    duration_ms = models.PositiveIntegerField(_("duration (ms)"), default=0)
    tokens_per_second = models.FloatField(_("tokens per second"), null=True)
    resumed = models.PositiveSmallIntegerField(
        _("resumed"), default=0, db_default=0, help_text=_("how often another replica went on with the answer")
    )
    created_at = models.DateTimeField(_("time"))

    class Meta:
        verbose_name = _("usage record")
        verbose_name_plural = _("requests")
        ordering = ["-created_at", "-id"]
        indexes = [
            # The last three let the console add up a day's records from the index alone: 4 times as fast at 100,000 records.
            models.Index(
                fields=["-created_at", "-id", "outcome", "prompt_tokens", "completion_tokens"], name="usage_by_time"
            ),
            models.Index(fields=["user", "-created_at"], name="usage_by_user_and_time"),
            models.Index(fields=["model_name", "-created_at"], name="usage_by_model_and_time"),
            models.Index(fields=["key", "-created_at"], condition=Q(key__isnull=False), name="usage_by_key_and_time"),
            models.Index(
                fields=["group", "-created_at"], condition=Q(group__isnull=False), name="usage_by_group_and_time"
            ),
        ]

    def __str__(self) -> str:
        return self.request_id


class UsageHour(models.Model):
    """The sum of the usage records that began in one hour (UTC), of one user, key, model and group.

    Written with the settlement, so it equals the sum of the records at any time, and goes on saying it when they are cleaned up.
    """

    hour = models.DateTimeField()
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    # 0: none. No foreign keys, since they are part of what makes the row unique and NULL would not be.
    key_number = models.BigIntegerField(default=0)
    group_number = models.BigIntegerField(default=0)
    model_name = models.CharField(max_length=200)
    requests = models.PositiveIntegerField(default=0)
    errors = models.PositiveIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    cost = models.BigIntegerField(default=0)
    # How often which time to first token: see accounts.histogram.
    first_token = models.TextField(default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["hour", "user", "key_number", "model_name", "group_number"], name="usage_hour_once"
            )
        ]
        indexes = [models.Index(fields=["user", "hour"], name="usage_hour_by_user")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H} {self.model_name}"


def new_request_id() -> str:
    """The id a request carries in headers, logs, usage and ledger."""
    return f"req-{uuid.uuid4().hex}"
