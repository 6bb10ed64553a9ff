"""Every page of the console in Chinese: no English is left over in what people read."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from django.test import Client

from accounts.models import User
from tests.console.conftest import make_model, make_replica, make_usage
from tests.console.test_access import ADMINISTRATOR_PAGES, OPERATOR_PAGES

# Names and units that are written the same in Chinese, and values of the test's own data.
SAME_WORDS = "llm platform gguf gpu api ai token tokens kb mb gb tb ms ctrl esc english username json utc zh-hans en kv qwen"
DATA = "llama-server smollm tiny gone first ada ben olga example com adjust chat completions req models path"
ALLOWED = {*SAME_WORDS.split(), *DATA.split()}
READ_ATTRIBUTES = {"title", "aria-label", "placeholder", "alt", "data-label", "data-lost"}
NOT_READ = {"script", "style", "code", "pre", "template"}
WORD = re.compile(r"[A-Za-z][A-Za-z'’-]+")
VALUES = re.compile(r"\S*[/@_\d.]\S*")  # paths, addresses, ids, versions, file names


class Texts(HTMLParser):
    """What a person reads on a page, icon names left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [text for name, text in attrs if name in READ_ATTRIBUTES and text]
        is_icon = "material-symbols-outlined" in (values.get("class") or "")
        if self._hidden or tag in NOT_READ or is_icon:
            self._hidden.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.found.append(data)


def english(html: str) -> set[str]:
    reader = Texts()
    reader.feed(html)
    left = set()
    for text in reader.found:
        words = [word for word in WORD.findall(VALUES.sub(" ", text)) if word.lower() not in ALLOWED]
        if words:
            left.add(" ".join(text.split()))
    return left


def test_the_check_sees_english_and_nothing_else():
    page = '<p title="Save it">保存 tiny <span class="material-symbols-outlined">close</span> 3.5 GB a@b.example</p><pre>no</pre>'
    assert english(page) == {"Save it"}


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
    assert english(answer.content.decode()) == set()
