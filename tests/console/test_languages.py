"""Every page of the console in Chinese: no English is left over in what people read."""

from __future__ import annotations

import pytest
from django.test import Client

from accounts.models import User
from tests.console.conftest import make_model, make_replica, make_usage
from tests.console.test_access import ADMINISTRATOR_PAGES, OPERATOR_PAGES
from tests.left_english import english

# Values of the test's own data.
NAMES = "smollm tiny gone first ada ben olga example com chat completions req models path"
DATA = frozenset(NAMES.split())


@pytest.fixture
def in_chinese(as_administrator: Client, user: User, machine) -> Client:
    make_replica(make_model("tiny"), "ready")
    make_replica(make_model("gone"), "failed", reason={"code": "file_missing", "params": {"path": "models/gone.gguf"}})
    for outcome in ("completed", "cancelled", "failed", "refused"):
        make_usage(2, user, outcome=outcome)
    as_administrator.defaults["HTTP_ACCEPT_LANGUAGE"] = "zh-CN,zh;q=0.9"
    return as_administrator


DETAILS = [
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
]


@pytest.mark.parametrize("path", [*OPERATOR_PAGES, *ADMINISTRATOR_PAGES, *DETAILS])
def test_no_english_is_left(in_chinese: Client, user: User, machine, path: str):
    model = make_model("first")
    ids = {"model": model.pk, "replica": make_replica(model, "loading").pk, "node": machine.pk, "user": user.pk}
    answer = in_chinese.get(path.format(**ids, usage=user.usage.first().pk), follow=True)
    assert answer.status_code == 200
    assert english(answer.content.decode(), DATA) == set()
