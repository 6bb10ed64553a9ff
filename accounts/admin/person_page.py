"""What the page of one person shows beside its form: money, keys, the last requests, how the person gets in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Sum
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from accounts import quota, selectors, single_sign_on
from accounts.admin.balances import allowance_text, balance_text
from accounts.admin.key_rows import key_rows
from accounts.models import ApiKey, SecondFactor, UsageHour, UsageRecord, User, Wallet
from llmplatform.lib.console import formats

KEYS_SHOWN = 10
REQUESTS_SHOWN = 8
USAGE_DAYS = 30


def person_panels(user: User) -> dict[str, Any]:
    wallet = quota.ensure_wallet(user)
    keys = ApiKey.objects.filter(user=user)
    return {
        "panel_cards": _cards(user, wallet),
        "panel_keys": key_rows(keys[:KEYS_SHOWN]),
        "panel_key_count": keys.count(),
        "panel_requests": [_request_row(record) for record in user.usage.all()[:REQUESTS_SHOWN]],
        "panel_sessions": _devices(user),
        "panel_second_factor": _second_factor(user),
        "panel_provider": _provider(user),
        "panel_links": _links(user),
        "panel_new_key_url": f"{reverse('admin:accounts_apikey_add')}?user={user.pk}",
        "panel_keys_url": f"{reverse('admin:accounts_apikey_changelist')}?owner={user.pk}",
    }


def _cards(user: User, wallet: Wallet) -> list[dict[str, Any]]:
    since = timezone.now() - timedelta(days=USAGE_DAYS)
    used = UsageHour.objects.filter(user=user, hour__gte=since).aggregate(cost=Sum("cost"), requests=Sum("requests"))
    return [
        {
            "title": _("Balance (credits)"),
            "value": balance_text(wallet),
            "note": _("%(credits)s held for requests under way") % {"credits": formats.credits(wallet.held)}
            if wallet.held
            else "",
        },
        {"title": _("Allowance"), "value": _allowance(user, wallet), "note": _next_allowance(wallet), "quiet": True},
        {
            "title": _("Used in 30 days (credits)"),
            "value": formats.credits(used["cost"]) if used["cost"] else _("nothing"),
            "note": _requests(used["requests"] or 0),
            "quiet": not used["cost"],
        },
        {"title": _("Last login"), "value": formats.ago(user.last_login), "quiet": True},
    ]


def _requests(count: int) -> str:
    text = ngettext("%(count)s request", "%(count)s requests", count)
    return text % {"count": formats.number(count)} if count else ""


def _allowance(user: User, wallet: Wallet) -> str:
    if wallet.allowance is not None:
        return allowance_text(wallet.allowance, wallet.allowance_period)
    if user.group is None or not user.group.allowance:
        return formats.NOTHING
    return _("%(allowance)s, by the group") % {
        "allowance": allowance_text(user.group.allowance, user.group.allowance_period)
    }


def _next_allowance(wallet: Wallet) -> str:
    if wallet.allowance_due is None:
        return ""
    return _("next: %(time)s") % {"time": formats.day(wallet.allowance_due)}


def _request_row(record: UsageRecord) -> dict[str, Any]:
    return {
        "when": formats.ago(record.created_at),
        "url": reverse("admin:accounts_usagerecord_change", args=[record.pk]),
        "model": record.model_name,
        "outcome": record.get_outcome_display(),
        "tokens": f"{formats.number(record.prompt_tokens)} + {formats.number(record.completion_tokens)}",
        "cost": formats.credits(record.cost),
    }


def _devices(user: User) -> int:
    """Logins of programs and apps that may still renew their token."""
    kept = OutstandingToken.objects.filter(user=user, expires_at__gt=timezone.now(), blacklistedtoken__isnull=True)
    return int(kept.count())


def _second_factor(user: User) -> str:
    factor = SecondFactor.objects.filter(user=user).first()
    if factor is not None:
        return _("on since %(day)s") % {"day": formats.day(factor.created_at)}
    return _("missing: must be set up at the next login") if selectors.lacks_second_factor(user) else _("off")


def _provider(user: User) -> str:
    """Where somebody is who comes by single sign-on."""
    identity = single_sign_on.identity_of(user)
    return identity.issuer if identity else ""


def _links(user: User) -> list[dict[str, str]]:
    return [
        {"title": _("Usage report"), "url": f"{reverse('console_usage_report')}?user={user.pk}&by=model"},
        {"title": _("Ledger"), "url": f"{reverse('admin:accounts_ledgerentry_changelist')}?owner={user.pk}"},
        {
            "title": _("Requests"),
            "url": f"{reverse('admin:accounts_usagerecord_changelist')}?user__id__exact={user.pk}",
        },
        {"title": _("Audit"), "url": f"{reverse('admin:accounts_auditentry_changelist')}?object=user:{user.pk}"},
    ]
