from __future__ import annotations

from django.urls import path

from accounts.api import audit, entering, history, keys, people, profile, redeeming, usage_report

urlpatterns = [
    path("api/v1/auth/register", entering.RegisterView.as_view(), name="api-register"),
    path("api/v1/auth/login", entering.LoginView.as_view(), name="api-login"),
    path("api/v1/auth/refresh", entering.RefreshView.as_view(), name="api-refresh"),
    path("api/v1/auth/logout", entering.LogoutView.as_view(), name="api-logout"),
    path("api/v1/auth/me", profile.MeView.as_view(), name="api-me"),
    path("api/v1/auth/password", profile.PasswordView.as_view(), name="api-password"),
    path("api/v1/auth/password/reset", entering.AskForResetView.as_view(), name="api-password-reset"),
    path("api/v1/auth/password/reset/confirm", entering.ResetView.as_view(), name="api-password-reset-confirm"),
    path("api/v1/usage", history.UsageView.as_view(), name="api-usage"),
    path("api/v1/usage/report", usage_report.UsageReportView.as_view(), name="api-usage-report"),
    path("api/v1/ledger", history.LedgerView.as_view(), name="api-ledger"),
    path("api/v1/audit", audit.AuditView.as_view(), name="api-audit"),
    path("api/v1/redeem", redeeming.RedeemView.as_view(), name="api-redeem"),
    path("api/v1/keys", keys.KeysView.as_view(), name="api-keys"),
    path("api/v1/keys/<int:key_id>", keys.KeyView.as_view(), name="api-key"),
    path("api/v1/keys/<int:key_id>/rotate", keys.RotateKeyView.as_view(), name="api-key-rotate"),
    path("api/v1/users", people.UsersView.as_view(), name="api-users"),
    path("api/v1/users/<int:user_id>", people.UserView.as_view(), name="api-user"),
    path("api/v1/users/<int:user_id>/approve", people.ApproveView.as_view(), name="api-user-approve"),
    path("api/v1/groups", people.GroupsView.as_view(), name="api-groups"),
    path("api/v1/groups/<int:group_id>", people.GroupView.as_view(), name="api-group"),
    path("api/v1/groups/<int:group_id>/keys", people.GroupKeysView.as_view(), name="api-group-keys"),
    path("api/v1/invites", people.InvitesView.as_view(), name="api-invites"),
    path("api/v1/invites/<int:invite_id>", people.InviteView.as_view(), name="api-invite"),
    path("api/v1/users/<int:user_id>/credits", profile.CreditsView.as_view(), name="api-credits"),
]
