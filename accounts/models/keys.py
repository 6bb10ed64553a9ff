"""API keys."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from accounts.models.people import Limits, Period, User


class Scope(models.TextChoices):
    """What a key may be used for; within its owner's role."""

    INFERENCE = "inference", _("use models")
    MODELS_READ = "models:read", _("see models and the cluster's state")
    MODELS_WRITE = "models:write", _("change, start and stop models")
    USAGE_READ = "usage:read", _("see usage and balance")
    ADMIN = "admin", _("everything else the owner may do")


class Priority(models.TextChoices):
    """Who comes first where requests wait."""

    INTERACTIVE = "interactive", pgettext_lazy("priority", "interactive")
    BATCH = "batch", pgettext_lazy("priority", "batch")


class ApiKey(Limits):
    """A key of a person or of a group's service account. Never deleted, only revoked: the ledger goes on naming it."""

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="keys", verbose_name=_("owner"))
    name = models.CharField(_("name"), max_length=100)
    # HMAC of the whole key: the key itself is shown once and kept nowhere.
    hash = models.CharField(max_length=64, unique=True, editable=False)
    prefix = models.CharField(_("begins with"), max_length=12, editable=False)
    last4 = models.CharField(_("ends with"), max_length=4, editable=False)
    scopes = models.JSONField(_("scopes"), default=list)
    allowed_models = models.JSONField(_("models"), default=list, blank=True)  # names; empty: all
    allowed_addresses = models.JSONField(_("addresses"), default=list, blank=True)  # networks (CIDR); empty: all
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)
    priority = models.CharField(_("priority"), max_length=12, choices=Priority.choices, default=Priority.INTERACTIVE)
    budget = models.BigIntegerField(_("budget"), null=True, blank=True)  # micro-credits in a period
    budget_period = models.CharField(
        _("budget begins anew"), max_length=8, choices=[("", _("never")), *Period.choices], blank=True, default=""
    )
    # Held and spent since ``budget_started``; written by accounts.quota, with the wallet, and for all keys of one chain of
    # rotations in the first of them: see ``holder``.
    budget_used = models.BigIntegerField(_("of the budget used"), default=0, editable=False)
    budget_started = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(_("last used"), null=True, editable=False)
    replaces = models.ForeignKey(
        "self", null=True, on_delete=models.PROTECT, related_name="replaced_by", editable=False
    )
    # The first key of the chain of ``replaces``; none: it is the first itself.
    root = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="rotations", editable=False)
    created_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+", editable=False, verbose_name=_("made by")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(budget=None) | Q(budget__gte=0), name="key_budget_not_negative"),
            models.CheckConstraint(condition=Q(budget_used__gte=0), name="key_budget_used_not_negative"),
        ]

    @property
    def holder(self) -> ApiKey:
        """Whose row counts what is used of the budget: however often a key is rotated, there is one budget."""
        return self.root or self

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…{self.last4})"
