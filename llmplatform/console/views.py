"""Console pages that are not tables."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.urls import URLPattern, path, reverse

from accounts.admin.usage_report import usage_report_page
from llmplatform.console.dashboard import live
from llmplatform.lib.console.admin import is_operator


def login(request: HttpRequest) -> HttpResponse:
    """The service has one login page. Who is logged in but no operator is refused here instead of being sent round in circles."""
    if request.user.is_authenticated and not is_operator(request):
        raise PermissionDenied
    wanted = request.GET.get("next") or reverse("admin:index")
    return (
        redirect(wanted)
        if request.user.is_authenticated and wanted.startswith("/admin/")
        else redirect_to_login(wanted)
    )


def password(_request: HttpRequest) -> HttpResponse:
    return redirect(resolve_url("password"))


urlpatterns: list[URLPattern] = [
    # Before admin.site.urls, whose own pages for these would know neither our rules nor our language choice.
    path("admin/login/", login),
    path("admin/password_change/", password),
    path("admin/live/", admin.site.admin_view(live), name="console_live"),
    path("admin/usage/", admin.site.admin_view(usage_report_page), name="console_usage_report"),
]
