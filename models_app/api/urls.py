from __future__ import annotations

from django.urls import path

from models_app.api import actions, downloads, tuning, views

NAME = "api/v1/models/<str:name>"  # names may hold dots and colons

urlpatterns = [
    path("api/v1/models", views.ModelsView.as_view(), name="models"),
    path("api/v1/model-files", views.ModelFilesView.as_view(), name="model-files"),
    path(NAME, views.ModelView.as_view(), name="model"),
    path(f"{NAME}/start", actions.waiting(actions.StartView.as_view()), name="model-start"),
    path(f"{NAME}/stop", actions.waiting(actions.StopView.as_view()), name="model-stop"),
    path(f"{NAME}/restart", actions.waiting(actions.RestartView.as_view()), name="model-restart"),
    path(f"{NAME}/go-back", actions.waiting(actions.GoBackView.as_view()), name="model-go-back"),
    path(f"{NAME}/logs", views.ModelLogsView.as_view(), name="model-logs"),
    path("api/v1/downloads", downloads.DownloadsView.as_view(), name="downloads"),
    path("api/v1/downloads/<int:download_id>", downloads.DownloadView.as_view(), name="download"),
    path("api/v1/downloads/<int:download_id>/retry", downloads.RetryView.as_view(), name="download-retry"),
    path("api/v1/catalogue", downloads.CatalogueView.as_view(), name="catalogue"),
    path("api/v1/uploads", downloads.UploadsView.as_view(), name="uploads"),
    path("api/v1/uploads/<str:upload_id>", downloads.UploadView.as_view(), name="upload"),
    path("api/v1/uploads/<str:upload_id>/finish", downloads.FinishView.as_view(), name="upload-finish"),
    path(f"{NAME}/tuning", tuning.TuningView.as_view(), name="model-tuning"),
]
