"""Wiring only: each app brings its own paths."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="chat:home"), name="home"),
    path("", include("llmplatform.console.views")),
    path("admin/", admin.site.urls),
    path("", include("accounts.urls")),
    path("", include("models_app.urls")),
    path("", include("cluster.urls")),
    path("", include("chat.urls")),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
]
