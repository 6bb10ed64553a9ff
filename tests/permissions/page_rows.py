"""Pages for people, who come with a session: path, methods, the least role. Every other method is answered with 405."""

from __future__ import annotations

from tests.permissions import ANYONE, USER

PAGE_ROWS = [
    ("healthz", "GET", ANYONE),
    ("readyz", "GET", ANYONE),
    ("", "GET POST PUT PATCH DELETE", ANYONE),  # sends everybody on to the chat page
    ("login", "GET POST PUT", ANYONE),
    ("login/code", "GET POST", ANYONE),  # leads back to the login without a first step
    ("login/sso", "GET", ANYONE),
    ("login/sso/back", "GET", ANYONE),
    ("register", "GET POST", ANYONE),
    ("password/forgotten", "GET POST", ANYONE),
    ("password/reset", "GET POST", ANYONE),
    ("logout", "POST", ANYONE),
    ("language", "POST", ANYONE),
    ("password", "GET POST", USER),
    ("account", "GET POST", USER),
    ("account/", "GET POST PUT PATCH DELETE", ANYONE),  # leads to the page without a slash
    ("account/balance", "GET POST", USER),
    ("account/keys", "GET POST", USER),
    ("account/keys/<int:key_id>/revoke", "POST", USER),
    ("account/keys/<int:key_id>/rotate", "POST", USER),
    ("account/security", "GET", USER),
    ("account/security/on", "POST", USER),
    ("account/security/codes", "POST", USER),
    ("account/security/off", "POST", USER),
    ("account/security/connect", "POST", USER),
    ("account/security/disconnect", "POST", USER),
    ("account/usage", "GET", USER),
    ("account/token", "POST", USER),
    ("chat/", "GET", USER),
    ("chat/list", "GET", USER),
    ("chat/models", "GET", USER),
    ("chat/<uuid:conversation_id>", "GET", USER),
    ("chat/<uuid:conversation_id>/messages", "GET", USER),
    ("chat/<uuid:conversation_id>/rename", "POST", USER),
    ("chat/<uuid:conversation_id>/delete", "POST", USER),
]

# What an empty form of these would say before it is looked whose the thing is.
FORMS = {"chat/<uuid:conversation_id>/rename": "title=New"}

# Not there without a provider; with one: accounts/tests/test_single_sign_on.py.
SINGLE_SIGN_ON = {"login/sso", "login/sso/back", "account/security/connect"}
