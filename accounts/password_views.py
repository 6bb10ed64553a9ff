"""The pages for a forgotten password."""

from __future__ import annotations

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from accounts import attempts, password_reset
from accounts.forms import ForgottenForm, ResetForm


@require_http_methods(["GET", "HEAD", "POST"])
def forgotten(request: HttpRequest) -> HttpResponse:
    if not password_reset.is_possible():
        return render(request, "accounts/password_forgotten.html")
    form = ForgottenForm(request.POST or None)
    status = 200
    if form.is_valid():
        origin = f"{request.scheme}://{request.get_host()}"
        try:
            password_reset.ask(form.cleaned_data["email"], request.META.get("REMOTE_ADDR", ""), origin)
            return render(request, "accounts/password_forgotten.html", {"sent": True})
        except attempts.TooManyAttempts as error:
            form.add_error(None, str(error))
            status = 429
    return render(request, "accounts/password_forgotten.html", {"form": form}, status=status)


@never_cache
@sensitive_post_parameters()
@require_http_methods(["GET", "HEAD", "POST"])
def reset(request: HttpRequest) -> HttpResponse:
    form = ResetForm(request.POST or None)
    if form.is_valid():
        try:
            attempts.count("password-reset", request.META.get("REMOTE_ADDR", ""))
            password_reset.confirm(**form.cleaned_data)
        except attempts.TooManyAttempts as error:
            form.add_error(None, str(error))
        except password_reset.LinkRefused:
            return render(request, "accounts/password_reset.html", {"refused": True}, status=400)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(request, _("Your password is changed."))
            return redirect("login")
    elif request.method == "POST" and ("uid" in form.errors or "token" in form.errors):
        return render(request, "accounts/password_reset.html", {"refused": True}, status=400)
    return render(request, "accounts/password_reset.html", {"form": form})
