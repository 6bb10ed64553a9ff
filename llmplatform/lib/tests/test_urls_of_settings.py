"""``PUBLIC_URL`` and ``EMAIL_URL``."""

from __future__ import annotations

import pytest

from llmplatform.lib import mail_url, public_url
from llmplatform.lib.configuration import ConfigurationError
from llmplatform.lib.mail_url import MailServer


@pytest.mark.parametrize(
    ("text", "url", "host"),
    [
        ("", "", ""),
        ("https://llm.example.com", "https://llm.example.com", "llm.example.com"),
        ("https://LLM.Example.com/", "https://llm.example.com", "llm.example.com"),
        ("https://llm.example.com:443", "https://llm.example.com", "llm.example.com"),
        ("http://llm:8080", "http://llm:8080", "llm"),
        ("http://192.0.2.1:80", "http://192.0.2.1", "192.0.2.1"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443", "[2001:db8::1]"),
    ],
)
def test_a_public_url(text: str, url: str, host: str) -> None:
    assert public_url.parse(text) == url
    assert public_url.host_of(url) == host


@pytest.mark.parametrize(
    "text",
    [
        "llm.example.com",
        "ftp://llm.example.com",
        "https://llm.example.com/llm",
        "https://llm.example.com?x=1",
        "https://user@llm.example.com",
        "https://llm.example.com:99999",
        "https://*.example.com",
        "https://.example.com",
        "https://",
        "https://[::1",
        "https://a b",
        "//llm.example.com",
    ],
)
def test_what_is_no_public_url(text: str) -> None:
    with pytest.raises(ConfigurationError, match="PUBLIC_URL="):
        public_url.parse(text)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("", MailServer()),
        ("smtp://mail", MailServer("mail", 25)),
        ("smtp://mail:2525?tls=true", MailServer("mail", 2525, starttls=True)),
        ("smtp://me:secret@mail", MailServer("mail", 587, "me", "secret", starttls=True)),
        ("smtp://me:secret@mail:25?tls=false", MailServer("mail", 25, "me", "secret")),
        ("smtps://me%40home:p%23%2F@mail", MailServer("mail", 465, "me@home", "p#/", tls_at_once=True)),
    ],
)
def test_a_mail_server(url: str, server: MailServer) -> None:
    assert mail_url.parse(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "mail:25",
        "http://mail",
        "smtp://",
        "smtp://:25",
        "smtp://mail:port",
        "smtp://me:hunter2@mail/x",
        "smtp://me:hunter2@mail?tls=perhaps",
        "smtp://me:hunter2@mail?ssl=true",
        "smtp://me:hunter2@mail?tls",
        "smtp://me:hunter2#@mail",
    ],
)
def test_what_is_no_mail_server_is_told_without_the_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        mail_url.parse(url)
    assert "EMAIL_URL" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
