"""People and their groups."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

HEAVIEST = 100  # weight in the queue


class Period(models.TextChoices):
    """How often something begins anew, by the service's own time zone."""

    DAY = "day", _("every day")
    WEEK = "week", _("every week")
    MONTH = "month", _("every month")


class Limits(models.Model):
    """What may pass in a minute and at once; 0 is no limit."""

    requests_per_minute = models.PositiveIntegerField(_("requests per minute"), default=0)
    tokens_per_minute = models.PositiveIntegerField(_("tokens per minute"), default=0)
    concurrent_requests = models.PositiveIntegerField(_("requests at once"), default=0)

    class Meta:
        abstract = True


class Group(Limits):
    """People who share rules. The limits are those of all its members together."""

    name = models.CharField(_("name"), max_length=100)
    description = models.CharField(_("description"), max_length=300, blank=True, default="")
    # Names of models; empty: all.
    allowed_models = models.JSONField(_("models"), default=list, blank=True)
    starting_balance = models.BigIntegerField(
        _("starting balance"), null=True, blank=True, help_text=_("empty: DEFAULT_TOKENS")
    )
    allowance = models.BigIntegerField(_("allowance"), default=0)
    allowance_period = models.CharField(_("allowance begins anew"), max_length=8, choices=Period, default=Period.MONTH)
    member_requests_per_minute = models.PositiveIntegerField(_("requests per minute, each member"), default=0)
    member_tokens_per_minute = models.PositiveIntegerField(_("tokens per minute, each member"), default=0)
    member_concurrent_requests = models.PositiveIntegerField(_("requests at once, each member"), default=0)
    queue_weight = models.PositiveSmallIntegerField(
        _("weight in the queue"), default=1, validators=[MinValueValidator(1), MaxValueValidator(HEAVIEST)]
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("group")
        verbose_name_plural = _("groups")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(Lower("name"), name="group_name_unique_ignoring_case"),
            models.CheckConstraint(condition=Q(allowance__gte=0), name="group_allowance_not_negative"),
            models.CheckConstraint(
                condition=Q(queue_weight__gte=1, queue_weight__lte=HEAVIEST), name="group_queue_weight_in_bounds"
            ),
            models.CheckConstraint(
                condition=Q(starting_balance=None) | Q(starting_balance__gte=0),
                name="group_starting_balance_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class User(AbstractUser):
    """A person, or the service account of a group. ``is_staff`` makes an operator, ``is_superuser`` an administrator."""

    email = models.EmailField(_("email address"), blank=True)
    language = models.CharField(_("language"), max_length=16, blank=True, default="")
    must_change_password = models.BooleanField(_("must change password"), default=False)
    # Registered while REGISTRATION=approval; not active until somebody approves.
    waiting = models.BooleanField(_("waits for approval"), default=False)
    group = models.ForeignKey(
        Group, null=True, blank=True, on_delete=models.PROTECT, related_name="members", verbose_name=_("group")
    )
    # Keys for services belong to a group: they are keys of its service account, which nobody can log in to.
    service_of = models.OneToOneField(
        Group, null=True, blank=True, on_delete=models.PROTECT, related_name="service_account", editable=False
    )
    # Empty: what the group says for each member. 0: no limit.
    requests_per_minute = models.PositiveIntegerField(_("requests per minute"), null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(_("tokens per minute"), null=True, blank=True)
    concurrent_requests = models.PositiveIntegerField(_("requests at once"), null=True, blank=True)

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


class Invite(models.Model):
    """A code with which people may register, whatever ``REGISTRATION`` says. Only its keyed hash is kept."""

    hash = models.CharField(max_length=64, unique=True, editable=False)
    last4 = models.CharField(_("ends with"), max_length=4, editable=False)
    note = models.CharField(_("note"), max_length=200, blank=True, default="")
    group = models.ForeignKey(
        Group, null=True, blank=True, on_delete=models.PROTECT, related_name="invites", verbose_name=_("group")
    )
    uses_left = models.PositiveIntegerField(_("uses left"), default=1)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    created_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+", editable=False, verbose_name=_("made by")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("invite")
        verbose_name_plural = _("invites")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"…{self.last4}"
