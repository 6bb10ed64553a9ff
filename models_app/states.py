"""The words for what a replica is doing, and the sets that code asks about. Nothing else names states."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class State(models.TextChoices):
    PENDING = "pending", _("waiting to start")
    DOWNLOADING = "downloading", _("downloading")
    STARTING = "starting", _("starting")
    LOADING = "loading", _("loading the model")
    READY = "ready", _("ready")
    DRAINING = "draining", _("finishing its requests")
    STOPPED = "stopped", _("stopped")
    FAILED = "failed", _("failed")


# A process exists, or may exist.
LIVE = frozenset({State.STARTING, State.LOADING, State.READY, State.DRAINING})
# On the way to READY: whoever waits for the model may go on waiting.
COMING = frozenset({State.PENDING, State.DOWNLOADING, State.STARTING, State.LOADING})
# Nothing will change unless somebody asks for it.
FINAL = frozenset({State.STOPPED, State.FAILED})
