"""A forgotten password: mails through a real SMTP server, links that work once, and the command for where there is no mail."""

from __future__ import annotations

import email
import email.policy
import io
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from aiosmtpd.controller import Controller
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client

from accounts import groups, password_reset, services
from accounts.attempts import PER_WINDOW
from accounts.models import User
from accounts.services import TokenRefused, WrongCredentials
from accounts.tests.conftest import PASSWORD
from tests.ports import free_port

pytestmark = pytest.mark.django_db(transaction=True)
ASK, CONFIRM = "/api/v1/auth/password/reset", "/api/v1/auth/password/reset/confirm"
NEW = "another-good-1"


class Mails:
    """What the mail server took."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], str, str]] = []
        self.refuse = False

    async def handle_DATA(self, server, session, envelope) -> str:
        if self.refuse:
            return "554 no"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.taken.append((envelope.rcpt_tos, message["Subject"], message.get_content()))
        return "250 OK"


@pytest.fixture
def mails(settings) -> Iterator[Mails]:
    mails = Mails()
    port = free_port()
    controller = Controller(mails, hostname="127.0.0.1", port=port)
    controller.start()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_URL = "smtp://127.0.0.1"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.DEFAULT_FROM_EMAIL = "llm@example.org"
    settings.PUBLIC_URL = "https://llm.example.org"
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    yield mails
    all_sent()
    controller.stop()


def all_sent() -> None:
    for work in list(password_reset._waiting):
        work.result(30)


def ask(client, address: str) -> int:
    status = client.post(ASK, {"email": address}, format="json").status_code
    all_sent()
    return status


def link_in(text: str) -> dict[str, str]:
    [url] = re.findall(r"https://\S+", text)
    assert url.startswith("https://llm.example.org/password/reset#")
    return {name: values[0] for name, values in parse_qs(urlsplit(url).fragment).items()}


def confirm(client, link: dict[str, str], password: str = NEW) -> int:
    return client.post(CONFIRM, {**link, "new_password": password}, format="json").status_code


def test_the_link_sets_a_password_once_and_ends_everything_old(client, user, mails):
    old = services.token_pair(user)
    assert ask(client, "BOB@example.com") == 202
    [(to, subject, text)] = mails.taken
    assert (to, subject) == (["bob@example.com"], "A new password for bob")
    link = link_in(text)
    assert confirm(client, link) == 204
    assert services.user_with_password("bob", NEW) == user
    with pytest.raises(WrongCredentials):
        services.user_with_password("bob", PASSWORD)
    with pytest.raises(TokenRefused):
        services.renew_tokens(old.refresh)
    assert confirm(client, link, "third-good-pass-1") == 401


def test_in_the_language_of_the_account(client, make_user, mails):
    make_user("li", email="li@example.com", language="zh-hans")
    ask(client, "li@example.com")
    [(_to, subject, text)] = mails.taken
    assert "li" in subject
    assert re.search("[\u4e00-\u9fff]", text)
    assert link_in(text)


@pytest.mark.parametrize("who", ["nobody", "blocked", "without password", "service account"])
def test_nobody_learns_who_has_an_account(client, user, mails, who):
    if who == "nobody":
        user.email = "other@example.com"
    elif who == "blocked":
        user.is_active = False
    elif who == "without password":
        user.set_unusable_password()
    else:
        user.service_of = groups.create_group({"name": "Physics"})
    user.save()
    assert ask(client, "bob@example.com") == 202
    assert mails.taken == []


@pytest.mark.parametrize(
    "change",
    [{"token": "x"}, {"uid": "x"}, {"uid": ""}, {"uid": "OTk5OTk5"}, {"uid": "/w8"}, {"token": "\x00"}],
    ids=str,
)
def test_a_link_that_was_changed(client, user, mails, change):
    ask(client, user.email)
    link = {**link_in(mails.taken[0][2]), **change}
    assert confirm(client, link) in {400, 401}
    assert services.user_with_password("bob", PASSWORD) == user


def test_somebody_elses_link_is_theirs(client, user, make_user, mails):
    other = make_user("eve", email="eve@example.com")
    ask(client, other.email)
    link = link_in(mails.taken[0][2])
    mine = parse_qs(urlsplit(password_reset.link_for(user, "")).fragment)["uid"][0]
    assert confirm(client, {**link, "uid": mine}) == 401


def test_too_old(client, user, mails, settings):
    ask(client, user.email)
    settings.PASSWORD_RESET_TIMEOUT = -1
    assert confirm(client, link_in(mails.taken[0][2])) == 401


def test_a_weak_password_leaves_the_link_good(client, user, mails):
    ask(client, user.email)
    link = link_in(mails.taken[0][2])
    assert confirm(client, link, "12345678") == 400
    assert confirm(client, link) == 204


def test_three_mails_an_hour_are_enough_for_one_account(client, user, mails):
    assert [ask(client, user.email) for _time in range(5)] == [202] * 5
    assert len(mails.taken) == password_reset.MAILS_AN_HOUR


def test_one_address_cannot_ask_for_ever(client, user, mails):
    statuses = [ask(client, f"a{n}@example.com") for n in range(PER_WINDOW + 1)]
    assert statuses == [202] * PER_WINDOW + [429]


def test_a_mail_server_that_refuses_or_is_away_changes_no_answer(client, user, mails, settings):
    mails.refuse = True
    assert ask(client, user.email) == 202
    settings.EMAIL_PORT = 1
    assert ask(client, user.email) == 202


def test_without_mail(client, user, settings, mails):
    settings.EMAIL_URL = ""
    assert ask(client, user.email) == 404
    assert "sends no mail" in Client().get("/password/forgotten").content.decode()
    assert "/password/forgotten" not in Client().get("/login").content.decode()


def test_a_link_never_leads_to_a_host_that_somebody_made_up(client, user, settings, mails):
    settings.PUBLIC_URL, settings.ALLOWED_HOSTS = "", ["*"]
    assert client.post(ASK, {"email": user.email}, format="json", HTTP_HOST="evil.example").status_code == 404
    settings.ALLOWED_HOSTS = ["testserver"]
    assert client.post(ASK, {"email": user.email}, format="json", HTTP_HOST="evil.example").status_code == 400
    ask(client, user.email)
    assert "http://testserver/password/reset#" in mails.taken[0][2]


def test_the_pages(user, mails):
    browser = Client()
    assert "/password/forgotten" in browser.get("/login").content.decode()
    told = browser.post("/password/forgotten", {"email": "nobody@example.com"}).content
    assert browser.post("/password/forgotten", {"email": user.email}).content.decode().count("on its way") == 1
    assert b"on its way" in told
    all_sent()
    link = link_in(mails.taken[0][2])
    done = browser.post("/password/reset", {**link, "new_password": NEW})
    assert (done.status_code, done.headers["Location"]) == (302, "/login")
    assert services.user_with_password("bob", NEW) == user
    again = browser.post("/password/reset", {**link, "new_password": "third-good-pass-1"})
    assert again.status_code == 400
    assert browser.post("/password/reset", {"new_password": NEW}).status_code == 400


# -- by the administrator of the machine -------------------------------------------------------------------------------


def command(*arguments: str) -> str:
    out = io.StringIO()
    call_command("resetpassword", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_gives_a_password_for_one_login(user):
    password = re.search(r"password (\S+)", command("bob@example.com"))[1]
    assert services.user_with_password("bob", password) == user
    assert User.objects.get(pk=user.pk).must_change_password


def test_or_a_link(client, user):
    link = parse_qs(urlsplit(command("bob", "--link").strip()).fragment)
    assert confirm(client, {name: values[0] for name, values in link.items()}) == 204


@pytest.mark.parametrize("name", ["nobody", "group:Physics"])
def test_for_nobody(db, name):
    groups.service_account(groups.create_group({"name": "Physics"}))
    with pytest.raises(CommandError):
        command(name)
