"""Paths of the account pages and of the accounts API."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import include, path

from accounts import views

urlpatterns = [
    path("login", views.LoginView.as_view(), name="login"),
    path("register", views.register, name="register"),
    path("password", views.password, name="password"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("language", views.language, name="language"),
    path("account", views.account, name="account"),
    path("account/token", views.access_token, name="account_token"),
    path("", include("accounts.api.urls")),
]
