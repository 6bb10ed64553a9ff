"""The pages in Chinese for whoever asks for Chinese, in English for everybody else; no English is left over in Chinese."""

from __future__ import annotations

from datetime import timedelta

import pyotp
import pytest
from django.core.cache import cache
from django.test import Client, RequestFactory
from django.utils import timezone, translation

from accounts import quota, services
from accounts.models import UsageRecord, User
from chat.models import Conversation, Message
from chat.page_texts import script_texts, suggestions
from llmplatform import views
from models_app.models import ModelConfig, Replica
from models_app.states import State
from tests.left_english import english, english_text

PASSWORD = "plenty of rain today"
DATA = frozenset({"anna", "example", "com", "rainbows", "tiny"})
APPS = frozenset({"totp", "aegis", "freeotp", "google", "microsoft", "authenticator"})
HAN = "账户"


@pytest.fixture(autouse=True)
def _pages(settings):
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.REGISTRATION = "open"
    cache.clear()


@pytest.fixture
def anna(db) -> User:
    anna = services.create_user("anna", PASSWORD, "anna@example.com")
    quota.hold(quota.HoldRequest("held", anna.wallet.pk, "tiny", 10, 10))
    UsageRecord.objects.create(
        request_id="used",
        user=anna,
        username="anna",
        model_name="tiny",
        endpoint="chat.completions",
        completion_tokens=9,
        status=200,
        created_at=timezone.now(),
    )
    return anna


@pytest.fixture
def chinese() -> Client:
    return Client(HTTP_ACCEPT_LANGUAGE="zh-CN,zh;q=0.9")


@pytest.fixture
def annas(anna, chinese) -> Client:
    chinese.force_login(anna)
    return chinese


def talk(user: User) -> Conversation:
    talk = Conversation.objects.create(user=user, title="Rainbows", model_name="tiny", updated_at=timezone.now())
    question = Message.objects.create(conversation=talk, role="user", text="天空为什么是蓝的？")
    figures = {"usage": {"completion_tokens": 9}, "timings": {"tokens_per_second": 8.0, "first_token_ms": 900}}
    for state, error in (("done", None), ("failed", {"code": "server_error", "message": "模型进程在回答时出错。"})):
        Message.objects.create(
            conversation=talk, parent=question, role="assistant", text="散射。", state=state, error=error, stats=figures
        )
    for days in (1, 3, 20, 200):
        Conversation.objects.create(user=user, title="Rainbows", updated_at=timezone.now() - timedelta(days=days))
    return talk


def model(state: State) -> None:
    tiny = ModelConfig.objects.create(name="tiny", file="tiny.gguf")
    Replica.objects.create(model=tiny, number=1, state=state, since=timezone.now())


# -- which language ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "is_chinese"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", True),
        ("zh", True),
        ("zh-Hans", True),
        ("zh-Hans-CN", True),
        ("zh-TW,zh;q=0.9", True),
        ("zh-Hant", True),
        ("fr-FR,zh;q=0.5", True),
        ("en-US,en;q=0.9,zh;q=0.8", False),
        ("de-DE,de;q=0.9", False),
        ("*", False),
        ("", False),
    ],
)
@pytest.mark.django_db
def test_the_browser_says_which_language(asked, is_chinese):
    page = Client(HTTP_ACCEPT_LANGUAGE=asked).get("/login").content.decode()
    assert (HAN in page) == is_chinese
    assert ('<html lang="zh-hans"' in page) == is_chinese
    assert ("User name or email address" in page) != is_chinese


# -- nothing left over ---------------------------------------------------------------------------------------------------
def test_the_check_sees_english_and_nothing_else():
    page = '<p title="Save it">保存 tiny <span class="material-symbols-outlined">close</span> 3.5 GB a@b.example</p><pre>no</pre>'
    assert english(page, DATA) == {"Save it"}


@pytest.mark.parametrize("path", ["/login", "/register", "/nothing-here"])
@pytest.mark.django_db
def test_pages_without_login(chinese, path):
    assert english(chinese.get(path).content.decode()) == set()


@pytest.mark.parametrize("registration", ["open", "approval", "closed"])
@pytest.mark.django_db
def test_registering(chinese, settings, registration):
    settings.REGISTRATION = registration
    fields = [{}, {"username": "a b", "email": "x", "password": "1234"}]
    fields += [{"username": "anna", "password": PASSWORD}] if registration == "approval" else []
    for sent in fields:
        assert english(chinese.post("/register", sent).content.decode(), DATA | {"x"}) == set()


def test_logging_in_wrongly(chinese, anna):
    for sent in ({}, {"username": "anna", "password": "wrong"}):
        assert english(chinese.post("/login", sent).content.decode(), DATA) == set()
    User.objects.update(is_active=False)
    answer = chinese.post("/login", {"username": "anna", "password": PASSWORD})
    assert english(answer.content.decode(), DATA) == set()


@pytest.mark.parametrize(
    "path", ["/account", "/password", "/chat/", "/chat/list", "/chat/list?q=nothing", "/chat/models"]
)
@pytest.mark.parametrize("state", [State.READY, State.LOADING, None])
def test_pages_of_a_person(annas, anna, path, state):
    talk(anna)
    if state is not None:
        model(state)
    answer = annas.get(path)
    assert answer.status_code == 200
    assert english(answer.content.decode(), DATA | {"nothing"}) == set()


def test_a_conversation(annas, anna):
    answer = annas.get(f"/chat/{talk(anna).pk}")
    assert "散射" in answer.content.decode()
    assert english(answer.content.decode(), DATA) == set()


def test_the_account_of_somebody_new_and_of_an_administrator(chinese, db):
    for user in (services.create_user("anna", PASSWORD), services.create_administrator("anna2", PASSWORD).user):
        chinese.force_login(user)
        assert english(chinese.get("/account").content.decode(), DATA) == set()


def test_changing_account_and_password(annas):
    for path, sent in (
        ("/account", {"email": "x"}),
        ("/account", {"email": "", "language": "zh-hans"}),
        ("/account/token", {}),
        ("/password", {}),
        ("/password", {"old_password": "wrong", "new_password": "12345678"}),
        ("/password", {"old_password": PASSWORD, "new_password": "rain of plenty today"}),
    ):
        page = annas.post(path, sent, follow=True).content.decode()
        assert english(page, DATA | {"x"}) == set()


def test_the_second_factor(chinese, annas, anna):
    setup = annas.get("/account/security?setup=1")
    secret = setup.context["setup"].secret
    wrong = annas.post("/account/security/on", {"code": "1", "password": "wrong"})
    code = pyotp.TOTP(secret).now()
    done = annas.post("/account/security/on", {"code": code, "password": PASSWORD})
    on = annas.get("/account/security")
    kept = annas.post("/account/security/off", {"off-code": "1", "off-password": PASSWORD})
    annas.logout()
    step = annas.post("/login", {"username": "anna", "password": PASSWORD}, follow=True)
    again = annas.post("/login/code?recovery=1", {"code": "1"})
    for answer in (setup, wrong, done, on, kept, step, again):
        assert english(answer.content.decode(), DATA | APPS) == set()


@pytest.mark.parametrize("must", [False, True])
def test_single_sign_on(chinese, anna, settings, must):
    settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_NAME = "http://127.0.0.1:1", "llm", "校园账号"
    settings.SECOND_FACTOR = "everyone" if must else "optional"
    pages = [chinese.get("/login"), chinese.get("/login/sso"), chinese.get("/login/sso/back")]
    chinese.force_login(anna)
    page = chinese.get("/account/security")
    for answer in [*pages, page]:
        assert english(answer.content.decode(), DATA | APPS) == set()


@pytest.mark.parametrize(
    "show", [views.not_found, views.permission_denied, views.bad_request, views.csrf_failure, views.server_error]
)
def test_what_went_wrong(show):
    request = RequestFactory().get("/somewhere")
    with translation.override("zh-hans"):
        page = (show(request) if show is views.server_error else show(request, "why")).content.decode()
    assert english(page) == set()


@pytest.mark.django_db
def test_errors_of_the_api_follow_the_language(chinese):
    answers = [
        chinese.get("/api/v1/auth/me"),
        chinese.get("/api/v1/nothing"),
        chinese.post("/api/v1/auth/login", "[]", content_type="application/json"),
        chinese.post("/api/v1/auth/login", "{}", content_type="application/json"),
    ]
    messages = [answer.json()["error"]["message"] for answer in answers]
    assert [text for text in messages if english_text(text, frozenset({"details"}))] == []


def test_words_of_the_script():
    with translation.override("zh-hans"):
        shown = [*script_texts().values(), *(text for item in suggestions() for text in item.values())]
    names = frozenset({"python"})
    assert [text for text in shown if english_text(text.replace("{", "_"), names)] == []
