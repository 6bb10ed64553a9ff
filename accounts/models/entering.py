"""What else proves who somebody is: a second factor, and the account they have at a single sign-on provider."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.models.people import User


class SecondFactor(models.Model):
    """Codes by time (TOTP) of an app on somebody's phone. The row is made when its owner has shown a first code."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="second_factor")
    secret = models.CharField(max_length=255, editable=False)  # encrypted
    created_at = models.DateTimeField(_("set up"), auto_now_add=True)
    # The time step of the newest code that was accepted: neither it nor an older one works again.
    last_step = models.BigIntegerField(default=0, editable=False)
    # Wrong codes in a row, and until when they keep further ones from being looked at.
    failures = models.PositiveIntegerField(default=0, editable=False)
    blocked_until = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("second factor")
        verbose_name_plural = _("second factors")

    def __str__(self) -> str:
        return f"{self.user.get_username()}"


class RecoveryCode(models.Model):
    """Stands in for the app once; the row goes when it is used. Only its keyed hash is kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="recovery_codes")
    hash = models.CharField(max_length=64, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "hash"], name="recovery_code_once")]

    def __str__(self) -> str:
        return f"{self.user_id}"


class SingleSignOnIdentity(models.Model):
    """Who an account is at a provider. Issuer and subject never change; names and addresses there do, and prove nothing."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="identities")
    issuer = models.CharField(max_length=500)
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["issuer", "subject"], name="identity_of_one_account"),
            models.UniqueConstraint(fields=["user", "issuer"], name="identity_one_of_each_issuer"),
        ]

    def __str__(self) -> str:
        return f"{self.issuer} {self.subject}"
