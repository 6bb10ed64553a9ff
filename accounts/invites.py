"""Invites: codes with which people may register whatever ``REGISTRATION`` says, into a group if one is named.

InviteRefused    unknown, used up and expired look alike to whoever tries
"""

from __future__ import annotations

import secrets
from datetime import datetime

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.models import Group, Invite, User
from accounts.secrets_at_rest import keyed_hash
from llmplatform.lib import audit

MOST_USES = 10_000
LONGEST_CODE = 200


class InviteRefused(ValidationError):
    def __init__(self) -> None:
        super().__init__({"invite": _("This invite is wrong, used up or expired.")})


def make_invite(
    *,
    group: Group | None = None,
    uses: int = 1,
    expires_at: datetime | None = None,
    note: str = "",
    by: User | None = None,
) -> tuple[Invite, str]:
    """The invite and its code, which is told here and kept nowhere. Raises ValidationError with messages per field."""
    errors = {}
    if not 1 <= uses <= MOST_USES:
        errors["uses"] = _("A whole number from 1 to %(high)d.") % {"high": MOST_USES}
    if expires_at is not None and expires_at <= timezone.now():
        errors["expires_at"] = _("This time is over already.")
    if len(note) > 200:
        errors["note"] = _("At most 200 characters.")
    if errors:
        raise ValidationError(errors)
    code = secrets.token_urlsafe(16)
    columns = {"note": note, "group": group, "uses_left": uses, "expires_at": expires_at, "created_by": by}
    with transaction.atomic():
        invite = Invite.objects.create(hash=_hash(code), last4=code[-4:], **columns)
        audit.on(invite, "create", after=audit.fields_of(invite))
    return invite, code


def revoke_invite(invite: Invite) -> None:
    """Nobody can use it any more."""
    with transaction.atomic():
        invite.refresh_from_db(fields=["uses_left"])
        Invite.objects.filter(pk=invite.pk).update(uses_left=0)
        audit.on(invite, "revoke", {"uses_left": invite.uses_left}, {"uses_left": 0})
    invite.uses_left = 0


def take_place(code: str) -> Invite:
    """One use of the invite is gone, within a transaction that is rolled back when the account is not made.

    Raises InviteRefused.
    """
    open_ones = Invite.objects.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), hash=_hash(code))
    if not open_ones.filter(uses_left__gt=0).update(uses_left=F("uses_left") - 1):
        raise InviteRefused
    return Invite.objects.select_related("group").get(hash=_hash(code))


def is_open(code: str) -> bool:
    """For a page that says at once when a link is worth nothing."""
    now = timezone.now()
    rows = Invite.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), hash=_hash(code), uses_left__gt=0)
    return bool(code) and rows.exists()


def _hash(code: str) -> str:
    return keyed_hash("invite", code[:LONGEST_CODE].strip())
