"""/api/v1/users, /groups and /invites, for administrators."""

from __future__ import annotations

import pytest
from rest_framework.test import APIClient

from accounts import groups, invites, services
from accounts.models import ApiKey, Group, Invite, User
from accounts.tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(admin) -> APIClient:
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {services.console_token(admin)}")
    return client


# -- people ------------------------------------------------------------------------------------------------------------


def names(answer) -> list[str]:
    assert answer.status_code == 200, answer.json()
    return [person["username"] for person in answer.json()["results"]]


def test_people_by_name_in_pages_without_service_accounts(api, make_user):
    groups.service_account(groups.create_group({"name": "Physics"}))
    for name in ("a", "b", "c", "d"):
        make_user(name)
    first = api.get("/api/v1/users", {"limit": 3})
    assert names(first) == ["a", "anna", "b"]
    second = api.get("/api/v1/users", {"limit": 3, "after": first.json()["next"]})
    assert (names(second), second.json()["next"]) == (["c", "d"], None)


def test_filters(api, make_user):
    physics = groups.create_group({"name": "Physics"})
    make_user("waits", waiting=True, is_active=False)
    make_user("member", group=physics, email="m_1@example.org")
    assert names(api.get("/api/v1/users", {"waiting": "true"})) == ["waits"]
    assert names(api.get("/api/v1/users", {"group": "physics"})) == ["member"]
    assert names(api.get("/api/v1/users", {"q": "_"})) == ["member"]
    assert names(api.get("/api/v1/users", {"q": "%"})) == []
    assert api.get("/api/v1/users", {"group": "none"}).status_code == 400


def test_a_page_costs_the_same_queries_however_many_people(api, make_user, django_assert_max_num_queries):
    physics = groups.create_group({"name": "Physics"})
    for _number in range(20):
        make_user(group=physics)
    with django_assert_max_num_queries(4):
        api.get("/api/v1/users")


def test_approving(api, settings):
    settings.REGISTRATION = "approval"
    user = services.register_user("new", PASSWORD)
    answer = api.post(f"/api/v1/users/{user.pk}/approve")
    assert (answer.json()["waiting"], answer.json()["active"]) == (False, True)


def test_changing_a_person(api, user):
    groups.create_group({"name": "Physics", "member_requests_per_minute": 3})
    body = {"role": "operator", "group": "Physics", "active": True, "limits": {"rpm": 0, "tpm": None}}
    told = api.patch(f"/api/v1/users/{user.pk}", body, format="json").json()
    assert (told["role"], told["group"], told["limits"]) == (
        "operator",
        "Physics",
        {"rpm": 0, "tpm": None, "concurrent": None},
    )
    assert api.patch(f"/api/v1/users/{user.pk}", {"group": None}, format="json").json()["group"] is None


def test_all_or_nothing(api, user):
    body = {"role": "operator", "group": "no such group"}
    assert api.patch(f"/api/v1/users/{user.pk}", body, format="json").status_code == 400
    assert User.objects.get(pk=user.pk).role == "user"


def test_the_last_administrator_stays(api, admin):
    for body in ({"active": False}, {"role": "user"}):
        assert api.patch(f"/api/v1/users/{admin.pk}", body, format="json").status_code == 400
    assert User.objects.get(pk=admin.pk).role == "admin"


def test_a_service_account_is_no_person(api):
    service = groups.service_account(groups.create_group({"name": "Physics"}))
    assert api.get(f"/api/v1/users/{service.pk}").status_code == 404
    assert api.patch(f"/api/v1/users/{service.pk}", {"role": "admin"}, format="json").status_code == 404


# -- groups ------------------------------------------------------------------------------------------------------------


def test_a_groups_life(api):
    body = {
        "name": "Physics",
        "models": ["a"],
        "starting_balance": 5,
        "allowance": 9,
        "allowance_period": "week",
        "limits": {"rpm": 100},
        "member_limits": {"concurrent": 2},
    }
    made = api.post("/api/v1/groups", body, format="json")
    assert made.status_code == 201
    told = made.json()
    assert {name: told[name] for name in ("name", "models", "starting_balance", "allowance", "allowance_period")} == {
        name: body[name] for name in ("name", "models", "starting_balance", "allowance", "allowance_period")
    }
    assert told["limits"] == {"rpm": 100, "tpm": 0, "concurrent": 0}
    assert told["member_limits"] == {"rpm": 0, "tpm": 0, "concurrent": 2}
    path = f"/api/v1/groups/{told['id']}"
    changed = api.patch(path, {"name": "Optics", "queue_weight": 3}, format="json").json()
    assert (told["queue_weight"], changed["name"], changed["queue_weight"]) == (1, "Optics", 3)
    assert [group["name"] for group in api.get("/api/v1/groups").json()["groups"]] == ["Optics"]
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        *(
            {"name": "x", **more}
            for more in ({"allowance": -1}, {"colour": "red"}, *({"queue_weight": n} for n in (0, 101)))
        ),
    ],
)
def test_what_no_group_can_be(api, body):
    assert api.post("/api/v1/groups", body, format="json").status_code == 400
    assert not Group.objects.exists()


def test_a_groups_own_keys(api):
    group = groups.create_group({"name": "Physics"})
    path = f"/api/v1/groups/{group.pk}/keys"
    assert api.post(path, {"name": ""}, format="json").status_code == 400
    assert not User.objects.filter(service_of=group).exists()
    made = api.post(path, {"name": "robot"}, format="json")
    assert (made.status_code, made.json()["owner"]) == (201, "group:Physics")
    assert [key["name"] for key in api.get(path).json()["keys"]] == ["robot"]
    assert ApiKey.objects.get().user.service_of == group
    assert api.delete(f"/api/v1/groups/{group.pk}").status_code == 400


# -- invites -----------------------------------------------------------------------------------------------------------


def test_an_invites_life(api, client, settings):
    settings.REGISTRATION = "closed"
    groups.create_group({"name": "Physics"})
    made = api.post("/api/v1/invites", {"group": "physics", "uses": 2, "note": "spring"}, format="json")
    assert (made.status_code, made["Cache-Control"]) == (201, "no-store")
    code = made.json()["code"]
    body = {"username": "anna2", "password": PASSWORD, "invite": code}
    assert client.post("/api/v1/auth/register", body, format="json").status_code == 201
    [listed] = api.get("/api/v1/invites").json()["invites"]
    assert (listed["uses_left"], listed["group"], "code" in listed) == (1, "Physics", False)
    assert api.delete(f"/api/v1/invites/{listed['id']}").status_code == 204
    assert not invites.is_open(code)
    assert api.delete("/api/v1/invites/999999").status_code == 404
    assert Invite.objects.count() == 1
