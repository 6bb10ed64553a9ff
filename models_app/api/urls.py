from __future__ import annotations

from django.urls import path

from models_app.api import actions, views

NAME = "api/v1/models/<str:name>"  # names may hold dots and colons

urlpatterns = [
    path("api/v1/models", views.ModelsView.as_view(), name="models"),
    path(NAME, views.ModelView.as_view(), name="model"),
    path(f"{NAME}/start", actions.waiting(actions.StartView.as_view()), name="model-start"),
    path(f"{NAME}/stop", actions.waiting(actions.StopView.as_view()), name="model-stop"),
    path(f"{NAME}/restart", actions.waiting(actions.RestartView.as_view()), name="model-restart"),
    path(f"{NAME}/logs", views.ModelLogsView.as_view(), name="model-logs"),
]
