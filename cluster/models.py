"""The machines of the service. Only ``cluster.services`` writes here."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _


class Node(models.Model):
    """A machine that runs, or may run, replicas. The first one is the machine ``manage.py serve`` runs on."""

    class Role(models.TextChoices):
        MASTER = "master", _("master")
        WORKER = "worker", _("worker")

    name = models.SlugField(_("name"), max_length=100, unique=True, allow_unicode=True)
    host = models.CharField(_("host"), max_length=253)
    port = models.PositiveIntegerField(_("port"))
    role = models.CharField(_("role"), max_length=16, choices=Role, default=Role.WORKER)
    drained = models.BooleanField(_("drained"), default=False, help_text=_("gets no new requests"))
    system: models.JSONField[dict[str, Any]] = models.JSONField(_("system figures"), default=dict, blank=True)
    joined_at = models.DateTimeField(_("joined"), auto_now_add=True)
    last_seen = models.DateTimeField(_("last seen"), null=True, blank=True)

    class Meta:
        verbose_name = _("machine")
        verbose_name_plural = _("machines")
        ordering = ["role", "name"]

    def __str__(self) -> str:
        return self.name
