"""Who gets which page of the console, and under which content policy."""

from __future__ import annotations

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Group
from django.test import Client
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from accounts import credits, invites
from accounts.models import RedeemCode, User
from tests.console.conftest import logged_in, make_group, make_key, make_model, make_replica, make_usage

OPERATOR_PAGES = [
    "/admin/",
    "/admin/live/",
    "/admin/models_app/modelconfig/",
    "/admin/models_app/modelconfig/live/",
    "/admin/models_app/modelconfig/add/",
    "/admin/models_app/modelconfig/config/",
    "/admin/models_app/replica/",
    "/admin/cluster/node/",
    "/admin/accounts/usagerecord/",
    "/admin/usage/",
]
ADMINISTRATOR_PAGES = [
    "/admin/accounts/user/",
    "/admin/accounts/user/add/",
    "/admin/accounts/user/credits/",
    "/admin/accounts/group/",
    "/admin/accounts/group/add/",
    "/admin/accounts/apikey/",
    "/admin/accounts/apikey/add/",
    "/admin/accounts/invite/",
    "/admin/accounts/invite/add/",
    "/admin/accounts/wallet/",
    "/admin/accounts/ledgerentry/",
    "/admin/accounts/redeembatch/",
    "/admin/accounts/redeembatch/add/",
    "/admin/accounts/redeemcode/",
    "/admin/accounts/modelpolicy/",
    "/admin/accounts/auditentry/",
]
READ_ONLY = [
    "models_app/replica",
    "cluster/node",
    "accounts/usagerecord",
    "accounts/wallet",
    "accounts/ledgerentry",
    "accounts/redeemcode",
    "accounts/modelpolicy",
    "accounts/auditentry",
]


@pytest.mark.parametrize("path", [*OPERATOR_PAGES, *ADMINISTRATOR_PAGES])
@pytest.mark.django_db
def test_nobody_enters_without_login(path: str):
    answer = Client().get(path)
    assert answer.status_code == 302
    assert "login" in answer["Location"]


@pytest.mark.parametrize("path", [*OPERATOR_PAGES, *ADMINISTRATOR_PAGES])
def test_users_are_refused(path: str, user: User):
    assert logged_in(user).get(path, follow=True).status_code == 403


@pytest.mark.parametrize("path", OPERATOR_PAGES)
def test_operators_see_the_service(path: str, as_operator: Client):
    assert as_operator.get(path).status_code == 200


@pytest.mark.parametrize("path", ADMINISTRATOR_PAGES)
def test_operators_see_neither_people_nor_balances(path: str, as_operator: Client):
    assert as_operator.get(path).status_code == 403
    assert path not in as_operator.get("/admin/").content.decode()


@pytest.mark.parametrize("path", [*OPERATOR_PAGES, *ADMINISTRATOR_PAGES])
def test_administrators_see_everything(path: str, as_administrator: Client):
    assert as_administrator.get(path).status_code == 200


@pytest.mark.parametrize("table", READ_ONLY)
def test_what_the_service_writes_is_not_edited_by_hand(table: str, as_administrator: Client):
    assert as_administrator.get(f"/admin/{table}/add/").status_code == 403


def test_a_blocked_operator_is_out(operator: User, as_operator: Client):
    User.objects.filter(pk=operator.pk).update(is_active=False)
    assert as_operator.get("/admin/").status_code == 302


def test_login_leads_back_to_the_page_that_was_asked_for(as_operator: Client):
    answer = as_operator.get("/admin/login/?next=/admin/cluster/node/")
    assert answer["Location"] == "/admin/cluster/node/"
    assert as_operator.get("/admin/login/?next=https://elsewhere.example/")["Location"].startswith("/login")


def test_tables_of_other_packages_are_hidden():
    assert not site.is_registered(Group)
    assert not site.is_registered(OutstandingToken)


def test_details_open(administrator: User, as_administrator: Client, machine):
    replica = make_replica(make_model("tiny"), "ready")
    make_usage(1, administrator)
    entry = administrator.wallet.entries.create(kind="adjust", available_change=5)
    paths = [
        f"models_app/modelconfig/{replica.model_id}",
        f"models_app/replica/{replica.pk}",
        f"cluster/node/{machine.pk}",
        f"accounts/user/{administrator.pk}",
        f"accounts/wallet/{administrator.wallet.pk}",
        f"accounts/ledgerentry/{entry.pk}",
        f"accounts/usagerecord/{administrator.usage.get().pk}",
        f"accounts/group/{make_group().pk}",
        f"accounts/apikey/{make_key(administrator).pk}",
        f"accounts/redeembatch/{credits.make_codes('Open day', 1, 5)[0].pk}",
        f"accounts/redeemcode/{RedeemCode.objects.get().pk}",
        f"accounts/invite/{invites.make_invite()[0].pk}",
    ]
    for path in paths:
        assert as_administrator.get(f"/admin/{path}/change/").status_code == 200, path


def test_eval_is_allowed_in_the_console_only(as_operator: Client):
    console = as_operator.get("/admin/")["Content-Security-Policy"]
    scripts = next(part for part in console.split("; ") if part.startswith("script-src"))
    assert scripts == "script-src 'self' 'unsafe-eval'"
    assert "style-src 'self' 'unsafe-inline'" in console
    for path in ("/healthz", "/administrators", "/chat/"):
        elsewhere = as_operator.get(path)["Content-Security-Policy"]
        assert "unsafe" not in elsewhere, path


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "This page is for administrators; you are an operator."),
        ("zh-hans", "此页面仅供管理员使用；您是操作员。"),
    ],
)
def test_an_operator_is_told_whom_a_page_is_for(as_operator: Client, language: str, said: str):
    as_operator.cookies["django_language"] = language
    answer = as_operator.get("/admin/accounts/user/")
    assert (answer.status_code, said in answer.content.decode()) == (403, True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("apikey", "A key lets"),
        ("group", "A group gives"),
        ("redeembatch", "Whoever redeems"),
        ("invite", "With an invite"),
    ],
)
def test_an_empty_list_says_what_it_is_for(as_administrator: Client, table: str, said: str):
    assert said in as_administrator.get(f"/admin/accounts/{table}/").content.decode()
    assert said not in as_administrator.get(f"/admin/accounts/{table}/?q=nothing").content.decode()
