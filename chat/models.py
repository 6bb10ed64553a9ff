"""A user's conversations. Text is stored here and nowhere else in the service."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class Conversation(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations", db_index=False
    )
    title = models.CharField(_("title"), max_length=200, blank=True, default="")
    model_name = models.CharField(_("model"), max_length=128, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField()

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        ordering = ["-updated_at", "-id"]
        indexes = [models.Index(fields=["user", "-updated_at", "-id"], name="conversation_list")]

    def __str__(self) -> str:
        return self.title or str(self.id)


class Message(models.Model):
    """A question or an answer. ``parent`` makes a tree: an answer made again is another child of the same question."""

    class Role(models.TextChoices):
        USER = "user", _("user")
        ASSISTANT = "assistant", _("assistant")

    class State(models.TextChoices):
        RUNNING = "running", _("being written")
        DONE = "done", _("done")
        STOPPED = "stopped", _("stopped")
        ERROR = "error", _("failed")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages", db_index=False)
    parent = models.ForeignKey("self", null=True, blank=True, on_delete=models.CASCADE, related_name="children")
    role = models.CharField(max_length=16, choices=Role)
    state = models.CharField(max_length=16, choices=State, default=State.DONE)
    text = models.TextField(blank=True, default="")
    reasoning = models.TextField(blank=True, default="")
    model_name = models.CharField(max_length=128, blank=True, default="")
    # {"code": "...", "message": "...", "retry": true} when state is error
    error: models.JSONField[dict[str, Any] | None] = models.JSONField(null=True, blank=True)
    # {"usage": {...}, "timings": {...}} once it ended
    stats: models.JSONField[dict[str, Any] | None] = models.JSONField(null=True, blank=True)
    # Which web process writes it (host:pid:start time); a running message of a process that is gone has failed.
    owner = models.CharField(max_length=120, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering = ["created_at", "id"]
        indexes = [models.Index(fields=["conversation", "created_at", "id"], name="message_by_conversation")]

    def __str__(self) -> str:
        return f"{self.role} {self.id}"
