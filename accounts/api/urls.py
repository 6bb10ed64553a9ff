from __future__ import annotations

from django.urls import path

from accounts.api import entering, history, profile

urlpatterns = [
    path("api/v1/auth/register", entering.RegisterView.as_view(), name="api-register"),
    path("api/v1/auth/login", entering.LoginView.as_view(), name="api-login"),
    path("api/v1/auth/refresh", entering.RefreshView.as_view(), name="api-refresh"),
    path("api/v1/auth/logout", entering.LogoutView.as_view(), name="api-logout"),
    path("api/v1/auth/me", profile.MeView.as_view(), name="api-me"),
    path("api/v1/auth/password", profile.PasswordView.as_view(), name="api-password"),
    path("api/v1/usage", history.UsageView.as_view(), name="api-usage"),
    path("api/v1/ledger", history.LedgerView.as_view(), name="api-ledger"),
    path("api/v1/users/<int:user_id>/credits", profile.CreditsView.as_view(), name="api-credits"),
]
