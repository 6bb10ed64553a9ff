"""API keys: made, changed, rotated, revoked; and found by what a caller sends.

The secret is ``sk-`` and 256 random bits. It is told once; what is kept is a keyed hash, and its beginning and end to know it by.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import callers
from accounts.models import ApiKey, Period, Priority, Scope, User
from accounts.secrets_at_rest import keyed_hash
from llmplatform.lib import audit

MOST_KEYS = 100  # of one owner, that are not revoked or expired
MOST_NAMES = 200  # of models or networks in one key
LONGEST_OVERLAP = timedelta(days=90)
LARGEST_BUDGET = 10**15
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
SHARED = (*LIMITS, "budget", "budget_period")  # by the keys of one chain of rotations


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a key may do. Empty models or addresses: all. A limit of 0: none. ``budget``: micro-credits in each period."""

    name: str
    scopes: Iterable[str] = (Scope.INFERENCE,)
    allowed_models: Iterable[str] = ()
    allowed_addresses: Iterable[str] = ()
    expires_at: datetime | None = None
    priority: str = Priority.INTERACTIVE
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    concurrent_requests: int = 0
    budget: int | None = None
    budget_period: str = ""


FIELDS = tuple(field.name for field in fields(NewKey))


# -- what a person can ask for ---------------------------------------------------------------------------------------


def create_key(owner: User, wanted: NewKey, by: User | None = None) -> tuple[ApiKey, str]:
    """The key and its secret. Raises ValidationError with messages per field."""
    cleaned = _cleaned(asdict(wanted))
    with transaction.atomic():
        _lock(owner)
        _check_room(owner, "name")
        return _stored(owner, cleaned, by or owner)


def update_key(key: ApiKey, changes: Mapping[str, Any], by: User | None = None) -> ApiKey:
    """``changes`` by the names of NewKey. Raises ValidationError with messages per field."""
    cleaned = _cleaned(changes)
    # Never the whole row: what of the budget is used is the ledger's to write.
    if cleaned:
        with transaction.atomic():
            before = audit.fields_of(key, *cleaned)
            ApiKey.objects.filter(pk=key.pk).update(**cleaned)
            key.refresh_from_db()
            audit.on(key, "update", before, audit.fields_of(key, *cleaned))
            _change_its_rotations(key, {name: cleaned[name] for name in SHARED if name in cleaned})
        callers.forget_key(key.hash)
    return key


def _change_its_rotations(key: ApiKey, shared: Mapping[str, Any]) -> None:
    """Where one of them got another budget or limit: together they have one. What has ended is not told of."""
    if not shared:
        return
    root_id = key.root_id or key.pk
    chain = ApiKey.objects.filter(Q(pk=root_id) | Q(root=root_id)).exclude(pk=key.pk)
    others = list(chain)
    chain.update(**shared)
    for other in others:
        if is_live(other):
            audit.on(other, "update", audit.fields_of(other, *shared), dict(shared))
        callers.forget_key(other.hash)


def rotate_key(key: ApiKey, overlap: timedelta, by: User | None = None) -> tuple[ApiKey, str]:
    """A new secret for the same rights; the old one works for ``overlap`` more. Raises ValidationError."""
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        text = _("From 0 seconds to %(days)d days.") % {"days": LONGEST_OVERLAP.days}
        raise ValidationError({"overlap_seconds": text})
    with transaction.atomic():
        _lock(key.user)
        # As it is now: what is changed at the same time must hold for the new one, too.
        key = ApiKey.objects.select_for_update(no_key=True).get(pk=key.pk)
        new, secret = _rotated(key, timezone.now(), overlap, by or key.user)
    callers.forget_key(key.hash)
    return new, secret


def _rotated(key: ApiKey, now: datetime, overlap: timedelta, by: User) -> tuple[ApiKey, str]:
    if not is_live(key, now):
        raise ValidationError({"key": _("This key is revoked or has expired; make a new one.")})
    if overlap:
        _check_room(key.user, "key")
    same = {name: getattr(key, name) for name in FIELDS}
    # Its root goes on counting what is used of budget and limits, or rotating would give them twice.
    new, secret = _stored(key.user, same | {"replaces": key, "root": key.holder}, by)
    end = now + overlap
    ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=end), pk=key.pk).update(expires_at=end)
    before = audit.fields_of(key, "expires_at")
    key.refresh_from_db(fields=["expires_at"])
    audit.on(key, "rotate", before, {"expires_at": key.expires_at, "replaced by": str(new)})
    return new, secret


def _lock(owner: User) -> None:
    """Within a transaction, before any key's row: of two who make keys at once the second one counts the first one's."""
    User.objects.select_for_update(no_key=True).get(pk=owner.pk)


def _check_room(owner: User, field: str) -> None:
    if live_keys(owner).count() >= MOST_KEYS:
        raise ValidationError({field: _("There are %(most)d keys already; revoke some.") % {"most": MOST_KEYS}})


def revoke_key(key: ApiKey, by: User | None = None) -> None:
    """Refused in this process at once, in every other one within ``callers.STATE_SECONDS``."""
    now = timezone.now()
    with transaction.atomic():
        if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now):
            audit.on(key, "revoke", {"revoked_at": None}, {"revoked_at": now})
    key.refresh_from_db(fields=["revoked_at"])
    callers.forget_key(key.hash)


# -- finding them ----------------------------------------------------------------------------------------------------


def live_keys(owner: User) -> Any:
    now = timezone.now()
    return ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), user=owner, revoked_at=None)


def is_live(key: ApiKey, now: datetime | None = None) -> bool:
    expired = key.expires_at is not None and key.expires_at <= (now or timezone.now())
    return key.revoked_at is None and not expired


def check_no_wider(parent: ApiKey, wanted: Mapping[str, Any]) -> None:
    """A key that makes or changes keys gives away no more than it has itself. Raises ValidationError with messages per field."""
    text = _("No more than the key that asks for it has.")
    errors = {}
    if not set(wanted.get("scopes", ())) <= set(parent.scopes):
        errors["scopes"] = text
    for name in ("allowed_models", "allowed_addresses"):
        own = set(getattr(parent, name))
        if name in wanted and own and not (wanted[name] and set(wanted[name]) <= own):
            errors[name] = text
    for name in LIMITS:
        own_limit = getattr(parent, name)
        if name in wanted and own_limit and not 0 < wanted[name] <= own_limit:
            errors[name] = text
    if "budget" in wanted and parent.budget is not None and not (wanted["budget"] or 0) <= parent.budget:
        errors["budget"] = text
    if "budget" in wanted and parent.budget is not None and wanted["budget"] is None:
        errors["budget"] = text
    if wanted.get("priority", parent.priority) != parent.priority == Priority.BATCH:
        errors["priority"] = text
    later = wanted.get("expires_at") is None or (parent.expires_at and wanted["expires_at"] > parent.expires_at)
    if "expires_at" in wanted and parent.expires_at is not None and later:
        errors["expires_at"] = text
    if errors:
        raise ValidationError(errors)


# -- checking what is wanted -----------------------------------------------------------------------------------------


def _cleaned(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Ready for the columns. All that is wrong is told at once."""
    cleaned: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for name, value in wanted.items():
        try:
            cleaned[name] = _CLEANERS[name](value)
        except ValidationError as error:
            errors[name] = error.messages
    if errors:
        raise ValidationError(errors)
    return cleaned


def _name(value: Any) -> str:
    text = str(value).strip()
    if not text or len(text) > 100 or not text.isprintable():
        raise ValidationError(_("A name of 1 to 100 characters."))
    return text


def _scopes(value: Iterable[str]) -> list[str]:
    wanted = set(value)
    if not wanted or not wanted <= set(Scope.values):
        raise ValidationError(_("One or more of: %(scopes)s") % {"scopes": ", ".join(Scope.values)})
    return [scope for scope in Scope.values if scope in wanted]


def _models(value: Iterable[str]) -> list[str]:
    """Names only: a key may be made before its model is."""
    names = list(dict.fromkeys(value))
    if len(names) > MOST_NAMES or not all(isinstance(n, str) and 0 < len(n) <= 200 and n.isprintable() for n in names):
        raise ValidationError(_("At most %(most)d names of models.") % {"most": MOST_NAMES})
    return names


def _addresses(value: Iterable[str]) -> list[str]:
    networks = []
    for text in value:
        try:
            networks.append(str(ipaddress.ip_network(str(text).strip(), strict=False)))
        except ValueError as error:
            message = _("“%(address)s” is no address and no network; write for example 10.0.0.0/8 or 2001:db8::/32.")
            raise ValidationError(message % {"address": str(text)[:50]}) from error
    if len(networks) > MOST_NAMES:
        raise ValidationError(_("At most %(most)d networks.") % {"most": MOST_NAMES})
    return list(dict.fromkeys(networks))


def _expiry(value: datetime | None) -> datetime | None:
    if value is not None and value <= timezone.now():
        raise ValidationError(_("This time is over already."))
    return value


def _priority(value: str) -> str:
    if value not in Priority.values:
        raise ValidationError(_("Not a possible priority."))
    return value


def _limit(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 2**31 - 1:
        raise ValidationError(_("A whole number from 0 to %(high)d.") % {"high": 2**31 - 1})
    return value


def _budget(value: int | None) -> int | None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_BUDGET
    ):
        raise ValidationError(_("Not a possible amount."))
    return value


def _period(value: str) -> str:
    if value not in {"", *Period.values}:
        raise ValidationError(_("Not a possible period."))
    return value


_CLEANERS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "scopes": _scopes,
    "allowed_models": _models,
    "allowed_addresses": _addresses,
    "expires_at": _expiry,
    "priority": _priority,
    **dict.fromkeys(LIMITS, _limit),
    "budget": _budget,
    "budget_period": _period,
}


def _stored(owner: User, columns: Mapping[str, Any], by: User) -> tuple[ApiKey, str]:
    secret = callers.KEY_PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        key = ApiKey.objects.create(
            user=owner,
            hash=keyed_hash("api key", secret),
            prefix=secret[: len(callers.KEY_PREFIX) + 6],
            last4=secret[-4:],
            created_by=by,
            **columns,
        )
        audit.on(key, "create", after=audit.fields_of(key))
    return key, secret
