"""What an administrator decides: approving, blocking, roles, groups, invites."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone

from accounts import credits, groups, invites, keys, people, services
from accounts.invites import InviteRefused
from accounts.keys import NewKey
from accounts.ledger_checks import ledger_problems
from accounts.models import Group, Invite, User, Wallet
from accounts.people import LastAdministrator
from accounts.tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db
PRICE = 1000


@pytest.fixture(autouse=True)
def _pages(settings):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


def saved(user: User) -> User:
    return User.objects.get(pk=user.pk)


# -- people ------------------------------------------------------------------------------------------------------------


def test_who_registers_where_approval_is_asked_for_waits_and_comes_in(settings):
    settings.REGISTRATION = "approval"
    user = services.register_user("new", PASSWORD)
    assert (user.waiting, user.is_active) == (True, False)
    with pytest.raises(services.AccountInactive):
        services.user_with_password("new", PASSWORD)
    people.approve_user(user)
    assert services.user_with_password("new", PASSWORD) == user
    assert not saved(user).waiting


def test_who_is_refused_does_not_wait_any_more(settings):
    settings.REGISTRATION = "approval"
    user = services.register_user("new", PASSWORD)
    people.refuse_user(user)
    assert (saved(user).waiting, saved(user).is_active) == (False, False)


def test_the_last_administrator_stays(admin, user):
    for harm in (lambda: people.block_user(admin), lambda: people.set_role(admin, "user")):
        with pytest.raises(LastAdministrator):
            harm()
    people.set_role(user, "admin")
    people.block_user(admin)
    with pytest.raises(LastAdministrator):
        people.set_role(user, "operator")
    assert (saved(user).role, saved(admin).is_active) == ("admin", False)


@pytest.mark.parametrize("role", people.ROLES)
def test_roles(user, admin, role):
    people.set_role(user, role)
    assert saved(user).role == role


@pytest.mark.parametrize("role", ["", "root", "Admin"])
def test_what_is_no_role(user, role):
    with pytest.raises(ValidationError):
        people.set_role(user, role)


# -- groups ------------------------------------------------------------------------------------------------------------


def group(**fields) -> Group:
    return groups.create_group({"name": "Physics", **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", " "),
        ("name", "x" * 101),
        ("allowed_models", "a"),
        ("allowed_models", [1]),
        ("starting_balance", -1),
        ("allowance", 10**16),
        ("allowance_period", "year"),
        ("requests_per_minute", -1),
    ],
)
def test_what_no_group_can_have(field, value):
    with pytest.raises(ValidationError) as caught:
        group(**{field: value})
    assert list(caught.value.message_dict) == [field]


def test_names_of_groups_are_unique_ignoring_case():
    group()
    with pytest.raises(ValidationError):
        group(name="PHYSICS")


def test_who_joins_a_group_has_its_allowance_and_who_leaves_does_not_get_it_again(user):
    physics = group(allowance=50 * PRICE)
    groups.move(user, physics)
    assert Wallet.objects.get(user=user).available == 1050 * PRICE
    groups.move(user, None)
    groups.move(user, physics)
    assert Wallet.objects.get(user=user).available == 1050 * PRICE
    assert ledger_problems() == []


def test_another_allowance_of_the_group_reaches_its_members(user):
    physics = group()
    groups.move(user, physics)
    groups.update_group(physics, {"allowance": 5 * PRICE, "allowance_period": "day"})
    assert Wallet.objects.get(user=user).available == 1005 * PRICE


def test_a_group_goes_only_when_nobody_needs_it(user):
    physics = group()
    groups.move(user, physics)
    with pytest.raises(groups.GroupInUse):
        groups.delete_group(physics)
    groups.move(user, None)
    groups.delete_group(physics)
    assert not Group.objects.exists()


def test_a_service_account_is_nobody_who_could_log_in(user):
    physics = group(starting_balance=7)
    service = groups.service_account(physics)
    assert groups.service_account(physics) == service
    assert (service.username, service.group, Wallet.objects.get(user=service).available) == (
        "group:Physics",
        physics,
        7,
    )
    with pytest.raises(services.WrongCredentials):
        services.user_with_password("group:Physics", "")
    assert service not in people.persons()
    groups.update_group(physics, {"name": "Optics"})
    assert saved(service).username == "group:Optics"
    key, _secret = keys.create_key(service, NewKey(name="robot"))
    assert key.user == service
    with pytest.raises(groups.GroupInUse):
        groups.delete_group(physics)


@pytest.mark.parametrize("harm", [lambda s: people.set_role(s, "admin"), lambda s: groups.move(s, None)])
def test_a_service_account_stays_what_it_is(harm):
    with pytest.raises(ValidationError):
        harm(groups.service_account(group()))


def test_nobody_can_take_the_name_of_a_service_account():
    with pytest.raises(ValidationError):
        services.create_user("group:Physics", PASSWORD)


# -- invites -----------------------------------------------------------------------------------------------------------


def test_an_invite_opens_a_closed_door_as_often_as_it_says(settings):
    settings.REGISTRATION = "closed"
    physics = group(starting_balance=3)
    invite, code = invites.make_invite(group=physics, uses=2)
    first = services.register_user("a", PASSWORD, invite=code)
    services.register_user("b", PASSWORD, invite=code)
    with pytest.raises(InviteRefused):
        services.register_user("c", PASSWORD, invite=code)
    assert (first.group, first.is_active, first.waiting) == (physics, True, False)
    assert Wallet.objects.get(user=first).available == 3
    assert Invite.objects.get(pk=invite.pk).uses_left == 0


def test_a_registration_that_fails_uses_up_nothing(settings, user):
    _invite, code = invites.make_invite()
    with pytest.raises(ValidationError):
        services.register_user(user.username, PASSWORD, invite=code)
    services.register_user("other", PASSWORD, invite=code)


def test_wrong_revoked_and_expired_read_the_same(monkeypatch):
    revoked, revoked_code = invites.make_invite()
    invites.revoke_invite(revoked)
    _late, late_code = invites.make_invite(expires_at=timezone.now() + timedelta(hours=1))
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now + timedelta(hours=2))
    told = set()
    for code in (revoked_code, late_code, "wrong", "\x00", "x" * 5000):
        with pytest.raises(InviteRefused) as caught:
            services.register_user("a", PASSWORD, invite=code)
        told.add(str(caught.value))
    assert len(told) == 1
    assert not User.objects.exists()


def test_the_link_leads_to_a_form_and_the_form_into_the_group(settings):
    settings.REGISTRATION = "closed"
    _invite, code = invites.make_invite(group=group())
    client = Client()
    assert client.get("/register").context.get("form") is None
    page = client.get(f"/register?invite={code}")
    assert page.context["form"]["invite"].value() == code
    client.post("/register", {"username": "anna", "password": PASSWORD, "invite": code})
    assert User.objects.get(username="anna").group.name == "Physics"
    refused = client.get(f"/register?invite={code}", follow=False)
    assert refused.status_code == 302  # logged in by now
    again = Client().post("/register", {"username": "otto", "password": PASSWORD, "invite": code})
    assert again.status_code == 403


def test_by_the_api_too(settings, client):
    settings.REGISTRATION = "closed"
    _invite, code = invites.make_invite()
    body = {"username": "anna", "password": PASSWORD, "invite": code}
    assert client.post("/api/v1/auth/register", body, format="json").status_code == 201
    again = client.post("/api/v1/auth/register", {**body, "username": "otto"}, format="json")
    assert again.status_code == 400
    assert list(again.json()["error"]["details"]) == ["invite"]


def test_allowances_of_new_members_come_with_the_next_sweep():
    _invite, code = invites.make_invite(group=group(starting_balance=0, allowance=9))
    user = services.register_user("anna", PASSWORD, invite=code)
    credits.give_allowances()
    assert Wallet.objects.get(user=user).available == 9
