"""A user's own page about their API keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from accounts import keys
from accounts.key_forms import KeyForm
from accounts.models import ApiKey, Priority, Scope, User
from llmplatform.lib.console.formats import rounded_credits

OVERLAP = timedelta(days=1)  # for the secret that a new one replaces
ENDED_SHOWN = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Line:
    """A key as its owner reads it."""

    key: ApiKey
    scopes: str
    bounds: list[str]
    state: str  # live, expired, revoked


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def keys_page(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    form = KeyForm(request.POST or None, owner=user)
    if form.is_valid():
        try:
            _key, secret = keys.create_key(user, form.wanted())
        except ValidationError as error:
            form.add_service_error(error)
        else:
            return _told(request, user, secret)
    status = 400 if request.method == "POST" else 200
    return render(request, "accounts/keys.html", _context(request, user, form), status=status)


@login_required
@require_POST
def revoke(request: HttpRequest, key_id: int) -> HttpResponse:
    key = get_object_or_404(ApiKey, pk=key_id, user=_user(request))
    keys.revoke_key(key)
    messages.success(request, _("The key “%(name)s” is revoked.") % {"name": key.name})
    return redirect("account_keys")


@login_required
@require_POST
def rotate(request: HttpRequest, key_id: int) -> HttpResponse:
    user = _user(request)
    key = get_object_or_404(ApiKey, pk=key_id, user=user)
    try:
        _new, secret = keys.rotate_key(key, OVERLAP)
    except ValidationError as error:
        messages.error(request, " ".join(error.messages))
        return redirect("account_keys")
    return _told(request, user, secret)


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - login_required stands before
    return request.user


def _told(request: HttpRequest, user: User, secret: str) -> HttpResponse:
    """The one page that shows a key; no browser or proxy keeps it."""
    context = {**_context(request, user, KeyForm(owner=user)), "secret": secret}
    response = render(request, "accounts/keys.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _context(request: HttpRequest, user: User, form: KeyForm) -> dict[str, Any]:
    since = timezone.now() - ENDED_SHOWN
    rows = ApiKey.objects.filter(user=user).select_related("root").order_by("-pk")[: 2 * keys.MOST_KEYS]
    shown = [line for line in map(_line, rows) if line.state == "live" or _ended(line.key) > since]
    return {
        "page": "account",
        "tab": "keys",
        "form": form,
        "lines": sorted(shown, key=lambda line: line.state != "live"),
        "base_url": request.build_absolute_uri("/v1"),
        "overlap": OVERLAP,
    }


def _ended(key: ApiKey) -> Any:
    ends = [at for at in (key.revoked_at, key.expires_at) if at is not None]
    return min(ends, default=timezone.now())


def _line(key: ApiKey) -> Line:
    state = "live" if keys.is_live(key) else "revoked" if key.revoked_at else "expired"
    return Line(key, ", ".join(str(Scope(scope).label) for scope in key.scopes), _bounds(key), state)


def _bounds(key: ApiKey) -> list[str]:
    bounds = []
    if key.allowed_models:
        bounds.append(_("models: %(names)s") % {"names": ", ".join(key.allowed_models)})
    if key.allowed_addresses:
        bounds.append(_("from: %(networks)s") % {"networks": ", ".join(key.allowed_addresses)})
    if key.priority == Priority.BATCH:
        bounds.append(_("priority: %(priority)s") % {"priority": key.get_priority_display()})
    if key.budget is not None:
        used, whole = rounded_credits(key.holder.budget_used), rounded_credits(key.budget)
        text = _("budget: %(used)s of %(whole)s credits used") % {"used": used, "whole": whole}
        bounds.append(f"{text} ({key.get_budget_period_display()})" if key.budget_period else text)
    limits = {
        "requests_per_minute": _("%(number)d requests a minute"),
        "tokens_per_minute": _("%(number)d tokens a minute"),
        "concurrent_requests": _("%(number)d requests at once"),
    }
    bounds += [text % {"number": getattr(key, name)} for name, text in limits.items() if getattr(key, name)]
    return bounds
