"""How keys are shown: in their own list, and on the page of the person or group they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from accounts.models import ApiKey
from llmplatform.lib.console import formats
from llmplatform.lib.console.badges import badge

ACTIVE, EXPIRED, REVOKED = "active", "expired", "revoked"


def with_status(keys: QuerySet[ApiKey], status: str) -> QuerySet[ApiKey]:
    over = Q(expires_at__lte=timezone.now())
    if status == REVOKED:
        return keys.exclude(revoked_at=None)
    if status == EXPIRED:
        return keys.filter(over, revoked_at=None)
    return keys.exclude(over).filter(revoked_at=None) if status == ACTIVE else keys


def status_of(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return REVOKED
    return EXPIRED if key.expires_at is not None and key.expires_at <= timezone.now() else ACTIVE


def status_badge(key: ApiKey) -> SafeString:
    status = status_of(key)
    if status == REVOKED:
        return badge(pgettext("state", "revoked"), "bad")
    if status == EXPIRED:
        return badge(_("expired"), "off")
    return badge(_("active"), "good")


def mask(key: ApiKey) -> SafeString:
    return format_html('<code class="c-mask">{}…{}</code>', key.prefix, key.last4)


def scope_badges(key: ApiKey) -> SafeString:
    """By the names that the API has for them."""
    return format_html_join(" ", '<code class="c-scope">{}</code>', ((scope,) for scope in key.scopes))


def key_rows(keys: Iterable[ApiKey]) -> list[dict[str, Any]]:
    return [
        {
            "name": key.name,
            "url": reverse("admin:accounts_apikey_change", args=[key.pk]),
            "mask": mask(key),
            "scopes": scope_badges(key),
            "used": formats.ago(key.last_used_at),
            "expires": formats.day(key.expires_at) if key.expires_at else formats.NOTHING,
            "status": status_badge(key),
        }
        for key in keys
    ]
