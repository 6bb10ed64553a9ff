from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

app_name = "chat"


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("chat")


urlpatterns = [path("chat/", home, name="home")]
