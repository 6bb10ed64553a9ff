"""Which models should run (written by ``models_app.services``) and which do (written by the supervisor only)."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _

from models_app.states import State

MODEL_NAME = RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z", _("letters, digits and . _ : - only, at most 128"))


class ModelConfig(models.Model):
    """One entry of ``model_config.json``: a name clients use, a file, and the settings of its llama-servers."""

    class Policy(models.TextChoices):
        ALWAYS = "always", _("always running")
        ON_DEMAND = "on_demand", _("started when asked for")
        OFF = "off", _("off")

    name = models.CharField(_("name"), max_length=128, unique=True, validators=[MODEL_NAME])
    file = models.CharField(_("file"), max_length=255)
    path = models.CharField(_("folder"), max_length=1000, blank=True, default="models/")
    # null: chosen for the machine and the model
    context_length = models.PositiveIntegerField(_("context length"), null=True, blank=True)
    max_tokens = models.PositiveIntegerField(
        _("longest answer (tokens)"), default=2048, validators=[MinValueValidator(1)]
    )
    temperature = models.FloatField(
        _("temperature"), default=0.7, validators=[MinValueValidator(0), MaxValueValidator(5)]
    )
    top_p = models.FloatField(_("top p"), default=0.8, validators=[MinValueValidator(0), MaxValueValidator(1)])
    repeat_penalty = models.FloatField(
        _("repeat penalty"), default=1.1, validators=[MinValueValidator(0), MaxValueValidator(10)]
    )
    threads = models.PositiveIntegerField(_("threads"), null=True, blank=True)
    gpu_layers = models.PositiveIntegerField(_("GPU layers"), default=0)
    active = models.BooleanField(_("should run"), default=True)
    description = models.TextField(_("description"), blank=True, default="")
    replicas = models.PositiveSmallIntegerField(
        _("replicas"), default=1, validators=[MinValueValidator(1), MaxValueValidator(64)]
    )
    slots = models.PositiveSmallIntegerField(
        _("slots per replica"), default=2, validators=[MinValueValidator(1), MaxValueValidator(256)]
    )
    policy = models.CharField(_("policy"), max_length=16, choices=Policy, default=Policy.ALWAYS)
    embeddings = models.BooleanField(_("embedding model"), default=False)
    # Keys of model_config.json that this version does not know; kept and written back.
    extra: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    # The entry as last read from model_config.json: at the next sync only what changed in the file is applied.
    file_entry: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    # Raised by "restart": the supervisor replaces replicas that were started for a lower number.
    restart_number = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name = _("model")
        verbose_name_plural = _("models")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def wanted_replicas(self) -> int:
        """How many replicas should run now. On-demand models count as wanted while active; loading them lazily comes later."""
        return self.replicas if self.active and self.policy != self.Policy.OFF else 0


class Replica(models.Model):
    """One llama-server process of a model. Only the supervisor writes here."""

    model = models.ForeignKey(ModelConfig, on_delete=models.CASCADE, related_name="running", verbose_name=_("model"))
    number = models.PositiveSmallIntegerField(_("number"))
    node = models.CharField(_("machine"), max_length=100)
    state = models.CharField(_("state"), max_length=16, choices=State, default=State.PENDING)
    since = models.DateTimeField(_("since"))
    host = models.CharField(_("host"), max_length=253, default="127.0.0.1")
    port = models.PositiveIntegerField(_("port"), null=True, blank=True)
    pid = models.PositiveIntegerField(_("process"), null=True, blank=True)
    # Start time of the process as the system tells it: a pid alone may belong to somebody else by now.
    pid_started = models.FloatField(null=True, blank=True)
    # The replica's API key is derived from this and the service's secret, so that no key lies in the database.
    key_nonce = models.CharField(max_length=64, blank=True, default="")
    # Hash of the command line it was started with: another one wanted means restart.
    fingerprint = models.CharField(max_length=64, blank=True, default="")
    slots = models.PositiveSmallIntegerField(_("slots"), default=1)
    context_length = models.PositiveIntegerField(_("context per slot"), null=True, blank=True)
    quick_failures = models.PositiveSmallIntegerField(_("failures in a row"), default=0)
    # {"code": "...", "params": {...}} of models_app.reasons, so that each reader sees it in their language.
    reason: models.JSONField[dict[str, Any] | None] = models.JSONField(_("last error"), null=True, blank=True)

    class Meta:
        verbose_name = _("replica")
        verbose_name_plural = _("replicas")
        ordering = ["model", "number"]
        constraints = [models.UniqueConstraint(fields=["model", "number"], name="replica_number_once_per_model")]

    def __str__(self) -> str:
        return f"{self.model.name}/{self.number}"
