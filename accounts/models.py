"""People, what they have, and what they used.

Amounts are whole micro-credits (1 credit = 1,000,000). Models are named, not referenced, so that history outlives a model
and this app depends on no other.
"""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _


class User(AbstractUser):
    """A person. ``is_staff`` makes an operator, ``is_superuser`` an administrator."""

    email = models.EmailField(_("email address"), blank=True)
    language = models.CharField(_("language"), max_length=16, blank=True, default="")
    must_change_password = models.BooleanField(_("must change password"), default=False)

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(Lower("username"), name="user_username_unique_ignoring_case"),
            models.UniqueConstraint(Lower("email"), condition=~Q(email=""), name="user_email_unique_ignoring_case"),
        ]

    @property
    def role(self) -> str:
        """``admin``, ``operator`` or ``user``."""
        if self.is_superuser:
            return "admin"
        return "operator" if self.is_staff else "user"


class Wallet(models.Model):
    """What an account can spend. ``available`` and ``held`` always equal the sums over its ledger entries."""

    user = models.OneToOneField(User, on_delete=models.PROTECT, related_name="wallet", verbose_name=_("user"))
    available = models.BigIntegerField(_("available"), default=0)
    held = models.BigIntegerField(_("held"), default=0)
    unlimited = models.BooleanField(_("unlimited"), default=False)

    class Meta:
        verbose_name = _("balance")
        verbose_name_plural = _("balances")
        constraints = [
            models.CheckConstraint(condition=Q(available__gte=0), name="wallet_available_not_negative"),
            models.CheckConstraint(condition=Q(held__gte=0), name="wallet_held_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.user.get_username()}"


class LedgerEntry(models.Model):
    """One change of a wallet, never altered or deleted. A request id has at most one entry of each kind."""

    class Kind(models.TextChoices):
        GRANT = "grant", _("grant")
        TOPUP = "topup", _("top-up")
        HOLD = "hold", _("hold")
        SETTLE = "settle", _("settlement")
        RELEASE = "release", _("release")
        ADJUST = "adjust", _("adjustment")

    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, related_name="entries", verbose_name=_("balance"))
    kind = models.CharField(_("kind"), max_length=16, choices=Kind)
    available_change = models.BigIntegerField(_("change of available"), default=0)
    held_change = models.BigIntegerField(_("change of held"), default=0)
    cost = models.BigIntegerField(
        _("cost"), default=0, help_text=_("what the request cost, for unlimited accounts too")
    )
    request_id = models.CharField(_("request"), max_length=64, blank=True, default="")
    model_name = models.CharField(_("model"), max_length=200, blank=True, default="")
    note = models.CharField(_("note"), max_length=200, blank=True, default="")
    created_at = models.DateTimeField(_("time"), auto_now_add=True, db_index=True)

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["request_id", "kind"],
                condition=~Q(request_id=""),
                name="ledger_once_per_request_and_kind",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.available_change:+d}"


class Hold(models.Model):
    """Money set aside for a request that is under way. The row goes when the request is settled or released."""

    request_id = models.CharField(max_length=64, unique=True)
    wallet = models.ForeignKey(Wallet, on_delete=models.PROTECT, related_name="holds")
    amount = models.BigIntegerField()
    # Which process answers for the request: host:pid:start time. Holds of a process that is gone are released.
    owner = models.CharField(max_length=120)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.request_id} {self.amount}"


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
    created_at = models.DateTimeField(_("time"))

    class Meta:
        verbose_name = _("usage record")
        verbose_name_plural = _("usage")
        ordering = ["-created_at", "-id"]
        indexes = [
            # The last three let the console add up a day's records from the index alone: 4 times as fast at 100,000 records.
            models.Index(
                fields=["-created_at", "-id", "outcome", "prompt_tokens", "completion_tokens"], name="usage_by_time"
            ),
            models.Index(fields=["user", "-created_at"], name="usage_by_user_and_time"),
            models.Index(fields=["model_name", "-created_at"], name="usage_by_model_and_time"),
        ]

    def __str__(self) -> str:
        return self.request_id


def new_request_id() -> str:
    """The id a request carries in headers, logs, usage and ledger."""
    return f"req-{uuid.uuid4().hex}"
