"""/api/v1/keys: making, listing, changing, rotating and revoking; and what a key may be used for in the REST API."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from accounts import keys, services
from accounts.keys import NewKey
from accounts.models import ApiKey, Scope

pytestmark = pytest.mark.django_db
PATH = "/api/v1/keys"
FIELDS = {
    "id", "name", "owner", "prefix", "last4", "scopes", "models", "addresses", "expires", "priority", "limits",
    "created", "last_used", "revoked",
}  # fmt: skip


def of(user) -> APIClient:
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {services.console_token(user)}")
    return client


def by_key(secret: str, **more) -> APIClient:
    client = APIClient(raise_request_exception=False, **more)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    return client


def make(user, **wanted) -> tuple[ApiKey, str]:
    return keys.create_key(user, NewKey(**{"name": "k", **wanted}))


def test_the_secret_is_told_once(user):
    made = of(user).post(PATH, {"name": "laptop"}, format="json")
    assert made.status_code == 201
    assert made["Cache-Control"] == "no-store"
    assert set(made.json()) == FIELDS | {"key"}
    assert made.json()["scopes"] == ["inference"]
    listed = of(user).get(PATH)
    assert made.json()["key"] not in listed.content.decode()
    assert [set(key) for key in listed.json()["keys"]] == [FIELDS]


def test_everything_that_can_be_said_of_a_key(user):
    body = {
        "name": "all",
        "scopes": ["usage:read", "inference"],
        "models": ["a"],
        "addresses": ["10.1.0.0/16"],
        "expires": (timezone.now() + timedelta(days=3)).isoformat(),
        "priority": "batch",
        "limits": {"rpm": 5, "tpm": 900, "concurrent": 2, "budget": 10**6, "budget_period": "week"},
    }
    told = of(user).post(PATH, body, format="json").json()
    assert told["scopes"] == ["inference", "usage:read"]
    assert (told["models"], told["addresses"], told["priority"]) == (["a"], ["10.1.0.0/16"], "batch")
    assert told["limits"] == {**body["limits"], "budget_used": 0}


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("name", {}),
        ("name", {"name": " "}),
        ("scopes", {"name": "k", "scopes": []}),
        ("scopes", {"name": "k", "scopes": ["root"]}),
        ("addresses", {"name": "k", "addresses": ["300.1.1.1"]}),
        ("expires", {"name": "k", "expires": "2020-01-01T00:00:00Z"}),
        ("priority", {"name": "k", "priority": "urgent"}),
        ("limits", {"name": "k", "limits": {"rpm": -1}}),
        ("limits", {"name": "k", "limits": {"rpx": 1}}),
        ("secret", {"name": "k", "secret": "mine"}),
    ],
)
def test_what_no_key_can_be(user, field, body):
    answer = of(user).post(PATH, body, format="json")
    assert answer.status_code == 400
    assert list(answer.json()["error"]["details"]) == [field]
    assert not ApiKey.objects.exists()


def test_changing_and_revoking(user):
    key, secret = make(user, scopes=[Scope.USAGE_READ])
    assert by_key(secret).get("/api/v1/usage").status_code == 200
    changes = {"name": "new", "priority": "batch", "limits": {"rpm": 7}}
    changed = of(user).patch(f"{PATH}/{key.pk}", changes, format="json").json()
    assert (changed["name"], changed["priority"], changed["limits"]["rpm"]) == ("new", "batch", 7)
    assert of(user).delete(f"{PATH}/{key.pk}").status_code == 204
    assert by_key(secret).get("/api/v1/usage").status_code == 401
    assert of(user).get(PATH).json()["keys"] == []
    assert len(of(user).get(PATH, {"ended": "true"}).json()["keys"]) == 1


def test_rotating(user):
    key, secret = make(user, scopes=[Scope.USAGE_READ])
    made = of(user).post(f"{PATH}/{key.pk}/rotate", {"overlap_seconds": 600}, format="json")
    assert made.status_code == 201
    assert by_key(secret).get("/api/v1/usage").status_code == 200
    assert by_key(made.json()["key"]).get("/api/v1/usage").status_code == 200
    at_once = of(user).post(f"{PATH}/{made.json()['id']}/rotate", {}, format="json")
    assert at_once.status_code == 201
    assert by_key(made.json()["key"]).get("/api/v1/usage").status_code == 401


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_somebody_elses_key_is_not_there(user, make_user, method):
    key, _secret = make(make_user())
    assert getattr(of(user), method)(f"{PATH}/{key.pk}", {}, format="json").status_code == 404
    assert of(user).post(f"{PATH}/{key.pk}/rotate", {}, format="json").status_code == 404
    key.refresh_from_db()
    assert key.revoked_at is None


def test_administrators_see_everybodys(user, make_user, admin):
    other = make_user("other")
    mine, _secret = make(user)
    theirs, _secret = make(other)
    ids = [key["id"] for key in of(admin).get(PATH, {"user": "*"}).json()["keys"]]
    assert ids == [theirs.pk, mine.pk]
    assert [key["owner"] for key in of(admin).get(PATH, {"user": "OTHER"}).json()["keys"]] == ["other"]
    assert of(admin).get(PATH, {"user": "nobody"}).status_code == 400
    assert of(user).get(PATH, {"user": "*"}).status_code == 403
    assert of(user).get(PATH, {"user": "other"}).status_code == 403
    assert of(admin).delete(f"{PATH}/{theirs.pk}").status_code == 204


# -- what a key may be used for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/api/v1/usage", "usage:read"),
        ("/api/v1/ledger", "usage:read"),
        ("/api/v1/auth/me", "usage:read"),
        ("/api/v1/models", "models:read"),
        ("/api/v1/cluster/stats", "models:read"),
        ("/api/v1/keys", "admin"),
    ],
)
def test_each_scope_opens_its_own_and_nothing_else(user, path, scope):
    for own in Scope.values:
        _key, secret = make(user, scopes=[own])
        assert by_key(secret).get(path).status_code == (200 if own == scope else 403), own


def test_a_key_never_has_more_than_its_owners_role(user, admin):
    _key, secret = make(user, scopes=Scope.values)
    assert by_key(secret).get("/api/v1/users").status_code == 403
    _key, secret = make(admin, scopes=Scope.values)
    assert by_key(secret).get("/api/v1/users").status_code == 200


def test_no_key_changes_a_password(user):
    _key, secret = make(user, scopes=Scope.values)
    body = {"old_password": "jh8&laks-d1", "new_password": "another-good-1"}
    assert by_key(secret).post("/api/v1/auth/password", body, format="json").status_code == 403


def test_a_key_that_makes_keys_gives_away_no_more_than_it_has(user):
    _key, secret = make(user, scopes=["admin"], allowed_models=["a"])
    refused = by_key(secret).post(PATH, {"name": "x", "scopes": ["inference"]}, format="json")
    assert set(refused.json()["error"]["details"]) == {"scopes", "models"}
    made = by_key(secret).post(PATH, {"name": "x", "scopes": ["admin"], "models": ["a"]}, format="json")
    assert made.status_code == 201
    wide, _secret = make(user, scopes=["inference"])
    assert by_key(secret).post(f"{PATH}/{wide.pk}/rotate", {}, format="json").status_code == 400
    assert by_key(secret).patch(f"{PATH}/{wide.pk}", {"scopes": ["usage:read"]}, format="json").status_code == 400


def test_from_elsewhere_it_is_refused(user):
    _key, secret = make(user, scopes=["usage:read"], allowed_addresses=["10.0.0.0/8"])
    assert by_key(secret, REMOTE_ADDR="10.1.1.1").get("/api/v1/usage").status_code == 200
    refused = by_key(secret, REMOTE_ADDR="11.1.1.1").get("/api/v1/usage")
    assert (refused.status_code, "11.1.1.1" in refused.json()["error"]["message"]) == (403, True)


def test_in_anthropics_header_too(user):
    _key, secret = make(user, scopes=["usage:read"])
    assert Client().get("/api/v1/usage", headers={"x-api-key": secret}).status_code == 200


def test_two_credentials_that_differ_are_refused(user, make_user):
    _key, secret = make(user, scopes=["usage:read"])
    _key, other = make(user, scopes=["usage:read"])
    both = {"Authorization": f"Bearer {secret}"}
    assert Client().get("/api/v1/usage", headers={**both, "x-api-key": secret}).status_code == 200
    assert Client().get("/api/v1/usage", headers={**both, "x-api-key": other}).status_code == 401
    browser = Client()
    browser.force_login(user)
    assert browser.get("/api/v1/usage", headers=both).status_code == 200
    assert browser.get("/api/v1/auth/me", headers=both).status_code == 200
    assert browser.get("/api/v1/keys", headers=both).status_code == 403  # the narrower one rules
    browser.force_login(make_user())
    assert browser.get("/api/v1/usage", headers=both).status_code == 401


@pytest.mark.parametrize(
    "value",
    [
        "", "Bearer", "Bearer ", "Basic YTpi", "bearer sk-",
        "Bearer '\"; --", "Bearer a\x00b", "Bearer é", "Bearer " + "x" * 65536,
        "Bearer sk-" + "x" * 43, "Bearer sk-" + "x" * 44, "Bearer a.b.c", "Bearer a b", "Bearer a,Bearer b",
    ],
)  # fmt: skip
def test_whatever_stands_in_the_header_it_is_401(value):
    answer = APIClient(raise_request_exception=False).get("/api/v1/auth/me", HTTP_AUTHORIZATION=value)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
