"""Groups of people, and their service accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts import callers, credits, quota
from accounts.models import Group, User
from llmplatform.lib import audit

# A person's name cannot have a colon, so no person is ever mistaken for a service account.
SERVICE_NAME = "group:{}"
ALLOWANCE = ("allowance", "allowance_period")
FIELDS = (
    "name",
    "description",
    "allowed_models",
    "starting_balance",
    *ALLOWANCE,
    "requests_per_minute",
    "tokens_per_minute",
    "concurrent_requests",
    "member_requests_per_minute",
    "member_tokens_per_minute",
    "member_concurrent_requests",
    "queue_weight",
)


class GroupInUse(ValidationError):
    def __init__(self) -> None:
        super().__init__(_("People, invites or used keys still belong to this group."))


def create_group(fields: Mapping[str, Any]) -> Group:
    """``fields`` by the names of FIELDS; amounts in micro-credits. Raises ValidationError with messages per field."""
    return _saved(Group(), fields)


def update_group(group: Group, changes: Mapping[str, Any]) -> Group:
    """Members feel other limits and models within seconds, and another allowance from the next period on."""
    before = tuple(getattr(group, name) for name in ALLOWANCE)
    with transaction.atomic():
        _saved(group, changes)
        service = User.objects.filter(service_of=group)
        service.update(username=_service_name(group))
    _forget_members(group)
    if tuple(getattr(group, name) for name in ALLOWANCE) != before:
        credits.allowances_changed(_member_ids(group))
    return group


def delete_group(group: Group) -> None:
    """Raises GroupInUse while anybody is in it or anything was paid by it."""
    with transaction.atomic():
        if group.members.filter(service_of=None).exists() or group.invites.exists():
            raise GroupInUse
        service = User.objects.filter(service_of=group).first()
        if service is not None:
            raise GroupInUse
        audit.on(group, "delete", before=audit.fields_of(group))
        group.delete()


def move(user: User, group: Group | None) -> None:
    """Puts a person into a group, or out of any. Their balance stays; the allowance is the new group's from now on."""
    if user.service_of_id is not None:
        raise ValidationError({"group": _("A service account stays with its group.")})
    with transaction.atomic():
        before = audit.fields_of(user, "group")
        User.objects.filter(pk=user.pk).update(group=group)
        user.group = group
        audit.on(user, "update", before, audit.fields_of(user, "group"))
    callers.forget(user.pk)
    credits.allowances_changed([user.pk])


def service_account(group: Group) -> User:
    """The account that the group's own keys belong to; made when it is first asked for. Nobody can log in to it."""
    found = User.objects.filter(service_of=group).first()
    if found is not None:
        return found
    try:
        with transaction.atomic():
            user = User(username=_service_name(group), service_of=group, group=group)
            user.set_unusable_password()
            user.save()
            quota.open_wallet(user)
            audit.on(user, "create", after=audit.fields_of(user, "username", "group"))
            return user
    except IntegrityError:  # another request has just made it
        return User.objects.get(service_of=group)


def _service_name(group: Group) -> str:
    return SERVICE_NAME.format(group.name)[: User._meta.get_field("username").max_length]


def _saved(group: Group, fields: Mapping[str, Any]) -> Group:
    unknown = set(fields) - set(FIELDS)
    if unknown:
        raise TypeError(", ".join(sorted(unknown)))
    for name, value in fields.items():
        setattr(group, name, value)
    group.name = group.name.strip()
    errors: dict[str, Any] = {}
    try:
        group.full_clean(exclude=["allowed_models"], validate_constraints=False)
    except ValidationError as error:
        errors = error.message_dict
    names = group.allowed_models
    if not isinstance(names, list) or not all(isinstance(name, str) and 0 < len(name) <= 200 for name in names):
        errors["allowed_models"] = [_("A list of names of models.")]
    for name in ("starting_balance", "allowance"):
        value = getattr(group, name)
        if value is not None and not 0 <= value <= quota.LARGEST_CHANGE:
            errors[name] = [_("Not a possible amount.")]
    if Group.objects.filter(name__iexact=group.name).exclude(pk=group.pk).exists():
        errors["name"] = [_("There is a group of this name already.")]
    if errors:
        raise ValidationError(errors)
    known = Group.objects.filter(pk=group.pk).first()
    before = audit.fields_of(known) if known else None
    try:
        with transaction.atomic():
            group.save()
            audit.on(group, "update" if known else "create", before, audit.fields_of(group))
    except IntegrityError as error:  # somebody took the name since it was checked
        raise ValidationError({"name": _("There is a group of this name already.")}) from error
    return group


def _member_ids(group: Group) -> list[int]:
    return list(User.objects.filter(group=group).values_list("pk", flat=True))


def _forget_members(group: Group) -> None:
    for user_id in _member_ids(group):
        callers.forget(user_id)
