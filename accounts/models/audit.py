"""Who changed what."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.models.keys import ApiKey
from accounts.models.only_added import OnlyAdded
from accounts.models.people import User


class Area(models.TextChoices):
    """What an entry belongs to; stored with it, so that each can be filtered by index."""

    LOGINS = "logins", _("logins and passwords")
    PEOPLE = "people", _("people and groups")
    KEYS = "keys", _("API keys")
    MONEY = "money", _("balances and prices")
    SERVICE = "service", _("models, machines, settings")


class AuditEntry(OnlyAdded):
    """One change by a person, a key or a command, or one failed login. Only ever added."""

    created_at = models.DateTimeField(_("time"), auto_now_add=True)
    actor = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+", verbose_name=_("who"), db_index=False
    )
    actor_name = models.CharField(_("who"), max_length=150, blank=True, default="")
    key = models.ForeignKey(
        ApiKey, null=True, on_delete=models.PROTECT, related_name="+", verbose_name=_("API key"), db_index=False
    )
    address = models.CharField(_("from where"), max_length=45, blank=True, default="")
    area = models.CharField(_("area"), max_length=16, choices=Area, default=Area.SERVICE)
    action = models.CharField(_("action"), max_length=60)
    target_type = models.CharField(_("kind of object"), max_length=40, blank=True, default="")
    target_id = models.CharField(_("object number"), max_length=64, blank=True, default="")
    target_name = models.CharField(_("object"), max_length=200, blank=True, default="")
    # Field → [before, after]; secrets as "changed".
    changes = models.JSONField(_("changes"), default=dict)

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="audit_by_time"),
            models.Index(fields=["actor", "-created_at"], name="audit_by_actor"),
            models.Index(fields=["key", "-created_at"], name="audit_by_key", condition=models.Q(key__isnull=False)),
            models.Index(fields=["address", "-created_at"], name="audit_by_address"),
            models.Index(fields=["area", "-created_at"], name="audit_by_area"),
            models.Index(fields=["target_type", "-created_at"], name="audit_by_type"),
            models.Index(fields=["target_name", "-created_at"], name="audit_by_name"),
            models.Index(fields=["target_type", "target_id", "-created_at"], name="audit_by_target"),
            models.Index(fields=["action", "-created_at"], name="audit_by_action"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target_name}"
