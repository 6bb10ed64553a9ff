"""What should be fetched (written by ``services``) and how far it is (written by the worker only)."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _


class Download(models.Model):
    """One model file, or all parts of one, on its way into the models folder."""

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        LOOKING = "looking", _("asking the hub")
        FETCHING = "fetching", _("downloading")
        CHECKING = "checking", _("being checked")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    class From(models.TextChoices):
        AUTO = "", _("any hub")
        HUGGING_FACE = "huggingface", "Hugging Face"
        MODELSCOPE = "modelscope", "ModelScope"
        URL = "url", _("an address")
        UPLOAD = "upload", _("an upload")

    FINAL = frozenset({State.DONE, State.FAILED, State.CANCELLED})

    # -- what is wanted ----------------------------------------------------------------------------------------------
    origin = models.CharField(_("from"), max_length=16, choices=From, blank=True, default=From.AUTO)
    repository = models.CharField(_("repository"), max_length=200, blank=True, default="")
    wanted_file = models.CharField(_("file or quantisation"), max_length=500, blank=True, default="")
    url = models.CharField(_("address"), max_length=2000, blank=True, default="")
    upload = models.CharField(max_length=32, blank=True, default="")
    language = models.CharField(max_length=16, blank=True, default="")  # of whoever asked: which hub is tried first
    # The model entry that is made of it; "" for none.
    model_name = models.CharField(_("model"), max_length=128, blank=True, default="")
    model_settings: models.JSONField[dict[str, Any]] = models.JSONField(default=dict, blank=True)
    cancelled = models.BooleanField(default=False)
    tries_wanted = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)

    # -- how it goes -------------------------------------------------------------------------------------------------
    state = models.CharField(_("state"), max_length=16, choices=State, default=State.WAITING)
    tries = models.PositiveIntegerField(default=0)
    hub = models.CharField(max_length=16, blank=True, default="")
    licence = models.CharField(_("licence"), max_length=100, blank=True, default="")
    # [{"url", "name", "size", "sha256", "etag"}], in order; known when the hub has answered
    files: models.JSONField[list[dict[str, Any]]] = models.JSONField(default=list, blank=True)
    size = models.PositiveBigIntegerField(_("size"), null=True, blank=True)
    fetched = models.PositiveBigIntegerField(_("bytes there"), default=0)
    speed = models.PositiveBigIntegerField(_("bytes per second"), default=0)
    # {"code": "...", "params": {...}} of models_app.downloads.problems
    reason: models.JSONField[dict[str, Any] | None] = models.JSONField(null=True, blank=True)
    changed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "models_app"
        verbose_name = _("download")
        verbose_name_plural = _("downloads")
        ordering = ["-pk"]
        indexes = [models.Index(fields=["state"], name="download_state")]

    def __str__(self) -> str:
        return self.what

    @property
    def what(self) -> str:
        """As the person asked for it."""
        if self.origin == self.From.UPLOAD:
            return self.wanted_file
        if self.origin == self.From.URL:
            return self.url
        return f"{self.repository}:{self.wanted_file}" if self.wanted_file else self.repository

    @property
    def file(self) -> str:
        """The first file's name in the models folder; "" before it is known."""
        return str(self.files[0]["name"]) if self.files else ""

    @property
    def is_open(self) -> bool:
        """It will still change by itself."""
        return self.state not in self.FINAL or self.tries < self.tries_wanted
