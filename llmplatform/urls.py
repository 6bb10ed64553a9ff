"""Wiring only: each app brings its own paths."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView

from llmplatform import views
from llmplatform.lib.api.docs import DocsView

urlpatterns = [
    path("healthz", views.healthz, name="healthz"),
    path("readyz", views.readyz, name="readyz"),
    path("", RedirectView.as_view(pattern_name="chat:home"), name="home"),
    path("", include("llmplatform.console.views")),
    path("admin/", admin.site.urls),
    path("", include("accounts.urls")),
    path("", include("models_app.urls")),
    path("", include("cluster.urls")),
    path("", include("chat.urls")),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", DocsView.as_view(url_name="schema"), name="docs"),
]

handler400 = views.bad_request
handler403 = views.permission_denied
handler404 = views.not_found
handler500 = views.server_error
