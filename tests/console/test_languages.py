"""Every page of the console in Chinese: no English is left over in what people read."""

from __future__ import annotations

import getpass
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from accounts import credits, invites, keys, prices, quota
from accounts.models import Group, Invite, RedeemBatch, User
from models_app.downloads import catalogue
from models_app.tests.gguf_files import make_gguf
from tests.console.conftest import (
    make_group,
    make_key,
    make_model,
    make_replica,
    make_settled_usage,
    make_usage,
    person,
)
from tests.console.test_access import ADMINISTRATOR_PAGES, OPERATOR_PAGES
from tests.left_english import WORD, english

# Values of the test's own data.
NAMES = (
    "smollm tiny gone first ada ben olga example com chat completions req models path open day staff notebook sk new"
    " inference"
)
OFFERED = " ".join(f"{entry.name} {entry.licence}" for entry in catalogue.entries())
HUBS = "hugging face modelscope owner repository"
DATA = frozenset(
    [*NAMES.split(), *HUBS.split(), *WORD.findall(OFFERED.lower()), getpass.getuser()]
)  # commands are told with who ran them


@pytest.fixture
def in_chinese(as_administrator: Client, administrator: User, user: User, machine, settings) -> Client:
    group = make_group("staff", service=True, allowance=5_000_000, requests_per_minute=6, allowed_models=["gone", "x"])
    User.objects.filter(pk=user.pk).update(group=group)
    person("new", is_active=False, waiting=True)
    make_key(user, budget=5_000_000, budget_period="month", tokens_per_minute=7)
    keys.revoke_key(make_key(group.service_account))
    _batch, codes = credits.make_codes("Open day", 3, 5_000_000, by=administrator)
    credits.redeem(user, codes[0])
    invites.make_invite(group=group, by=administrator)
    prices.set_policy("tiny", {"prompt_price": 0, "completion_price": 7, "concurrent_requests": 2})
    quota.top_up(user.wallet, 1_000_000, expires_at=timezone.now() + timedelta(days=3))
    make_replica(make_model("tiny"), "ready")
    make_replica(make_model("gone"), "failed", reason={"code": "file_missing", "params": {"path": "models/gone.gguf"}})
    make_gguf(settings.MODELS_PATH / "tiny.gguf")
    for outcome in ("completed", "cancelled", "failed", "refused"):
        make_usage(2, user, outcome=outcome)
    make_settled_usage(3, user)
    as_administrator.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-CN,zh;q=0.9"
    return as_administrator


DETAILS = [
    "/admin/models_app/modelconfig/add/fits/?file=tiny.gguf",
    "/admin/models_app/modelconfig/add/fits/?entry=bge-m3",
    "/admin/models_app/modelconfig/add/fits/?file=gone.gguf",
    "/admin/models_app/modelconfig/add/settings/?file=tiny.gguf",
    "/admin/models_app/modelconfig/add/settings/?entry=bge-m3",
    "/admin/models_app/modelconfig/add/start/?model={model}",
    "/admin/models_app/modelconfig/{model}/change/",
    "/admin/models_app/modelconfig/{model}/delete/",
    "/admin/models_app/modelconfig/{model}/history/",
    "/admin/models_app/modelconfig/{model}/stop/",
    "/admin/models_app/replica/{replica}/change/",
    "/admin/cluster/node/{node}/change/",
    "/admin/cluster/node/{node}/drain/",
    "/admin/accounts/user/{user}/change/",
    "/admin/accounts/user/{user}/password/",
    "/admin/accounts/user/{user}/top_up/",
    "/admin/accounts/usagerecord/{usage}/change/",
    "/admin/accounts/usagerecord/?q=nothing",
    *(f"/admin/accounts/user/{{user}}/{name}/" for name in ("correct", "set_allowance", "unlimited_or_not", "block")),
    *(f"/admin/accounts/user/{{user}}/{name}/" for name in ("approve", "refuse", "unblock", "history")),
    "/admin/accounts/user/?status=waiting",
    "/admin/accounts/group/{group}/change/",
    "/admin/accounts/group/{group}/delete/",
    "/admin/accounts/apikey/{key}/change/",
    *(f"/admin/accounts/apikey/{{key}}/{name}/" for name in ("rotate", "revoke", "change_rules")),
    "/admin/accounts/apikey/add/?group={group}",
    "/admin/accounts/redeembatch/{batch}/change/",
    "/admin/accounts/redeembatch/{batch}/revoke/",
    "/admin/accounts/invite/{invite}/revoke/",
    "/admin/accounts/wallet/{wallet}/change/",
    "/admin/accounts/ledgerentry/?owner={user}",
    "/admin/accounts/ledgerentry/?owner={user}&kind=grant&key={key}",
    "/admin/accounts/modelpolicy/set/?model=tiny",
    "/admin/usage/?by=key&period=today",
    "/admin/usage/?by=day",
    "/admin/usage/?user={user}",
    "/admin/usage/?period=last_month",
]
POSTS = {
    "/admin/models_app/modelconfig/add/settings/?file=tiny.gguf": [{"name": ""}],
    "/admin/models_app/modelconfig/config/": [{"sync": "yes"}, {"import": "yes"}, {"keep": "file:"}],
    "/admin/models_app/modelconfig/next/": [{"step": ""}],
    "/admin/accounts/user/credits/": [
        {"text": "ben,5\n王,\n"},
        {"text": 'nobody,5\nben,x\nben,1\nben,2\n,3\nben,9999999999\na"b,"'},
        {"text": ""},
        {"text": "ben,"},
        {"step": "give", "nonce": "0" * 32, "rows": "ben,5"},
        {"step": "give", "nonce": "0" * 32, "rows": "nobody,5\nben,1"},
    ],
    "/admin/accounts/user/": [
        {"action": "approve_chosen", "_selected_action": "{new}"},
        {"action": "refuse_chosen", "_selected_action": "{new}"},
        {"action": "deactivate", "_selected_action": "{user}"},
        {"action": "make_operator", "_selected_action": "{user}"},
        {"action": "make_user", "_selected_action": "{user}"},
        {"action": "refuse_chosen", "_selected_action": "{new}", "confirmed": "yes"},
        {"action": "move_chosen", "_selected_action": "{user}"},
        {"action": "activate", "_selected_action": "{user}"},
    ],
    "/admin/accounts/apikey/": [{"action": "revoke_chosen", "_selected_action": "{key}"}],
    "/admin/accounts/apikey/add/": [
        {"once": "1", "name": "notebook", "scopes": "inference", "which_models": "all", "username": "ben"},
        {
            "once": "2",
            "name": "",
            "scopes": "x",
            "which_models": "chosen",
            "username": "nobody",
            "expires_at": "2001-01-01",
        },
        {
            "once": "3",
            "name": "x",
            "scopes": "inference",
            "which_models": "all",
            "username": "ben",
            "allowed_addresses": "-",
        },
    ],
    "/admin/accounts/redeembatch/add/": [{"once": "4", "name": "Open day", "count": "2", "credits": "5"}, {"once": ""}],
    "/admin/accounts/invite/add/": [{"once": "5", "uses": "1"}, {"once": "5", "uses": "0"}],
    "/admin/accounts/user/{user}/correct/": [
        {"_form_submitted": "on", "once": "6", "credits": "-1000000", "note": "ben"},
        {"_form_submitted": "on", "once": "7", "credits": "0"},
    ],
    "/admin/accounts/user/{user}/top_up/": [{"_form_submitted": "on", "once": "8", "credits": "1"}],
    "/admin/accounts/group/add/": [{"name": "staff", "which_models": "chosen", "allowance": "-1"}],
}


def ids(user: User, machine) -> dict[str, int]:
    model = make_model("first")
    return {
        "model": model.pk,
        "replica": make_replica(model, "loading").pk,
        "node": machine.pk,
        "user": user.pk,
        "usage": user.usage.first().pk,
        "new": User.objects.get(username="new").pk,
        "group": Group.objects.get().pk,
        "key": user.keys.get().pk,
        "batch": RedeemBatch.objects.get().pk,
        "invite": Invite.objects.get().pk,
        "wallet": user.wallet.pk,
    }


@pytest.mark.parametrize("path", [*OPERATOR_PAGES, *ADMINISTRATOR_PAGES, *DETAILS])
def test_no_english_is_left(in_chinese: Client, user: User, machine, path: str):
    answer = in_chinese.get(path.format(**ids(user, machine)), follow=True)
    assert answer.status_code == 200
    assert english(answer.content.decode(), DATA) == set()


@pytest.mark.parametrize(("path", "number"), [(path, number) for path in POSTS for number in range(len(POSTS[path]))])
def test_no_english_is_left_in_what_is_answered(in_chinese: Client, user: User, machine, path: str, number: int):
    numbers = ids(user, machine)
    data = {name: value.format(**numbers) for name, value in POSTS[path][number].items()}
    answer = in_chinese.post(path.format(**numbers), data, follow=True)
    assert answer.status_code == 200
    assert english(answer.content.decode(), DATA) == set()
