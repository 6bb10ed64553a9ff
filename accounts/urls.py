"""Paths of the account pages and of the accounts API."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import include, path
from django.views.generic import RedirectView

from accounts import (
    balance_views,
    key_views,
    password_views,
    second_factor_views,
    single_sign_on_views,
    usage_views,
    views,
)

urlpatterns = [
    path("login", views.LoginView.as_view(), name="login"),
    path("login/code", second_factor_views.login_code, name="login_code"),
    path("login/sso", single_sign_on_views.begin, name="sso"),
    path("login/sso/back", single_sign_on_views.finish, name="sso_back"),
    path("register", views.register, name="register"),
    path("password", views.password, name="password"),
    path("password/forgotten", password_views.forgotten, name="password_forgotten"),
    path("password/reset", password_views.reset, name="password_reset"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("language", views.language, name="language"),
    path("account", views.account, name="account"),
    path("account/", RedirectView.as_view(pattern_name="account")),
    path("account/balance", balance_views.balance, name="account_balance"),
    path("account/keys", key_views.keys_page, name="account_keys"),
    path("account/keys/<int:key_id>/revoke", key_views.revoke, name="account_key_revoke"),
    path("account/keys/<int:key_id>/rotate", key_views.rotate, name="account_key_rotate"),
    path("account/security", second_factor_views.security, name="account_security"),
    path("account/security/on", second_factor_views.turn_on, name="second_factor_on"),
    path("account/security/codes", second_factor_views.new_codes, name="recovery_codes"),
    path("account/security/off", second_factor_views.turn_off, name="second_factor_off"),
    path("account/security/connect", single_sign_on_views.connect, name="sso_connect"),
    path("account/security/disconnect", second_factor_views.disconnect, name="sso_disconnect"),
    path("account/usage", usage_views.usage, name="account_usage"),
    path("account/token", views.access_token, name="account_token"),
    path("", include("accounts.api.urls")),
]
