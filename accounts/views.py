"""Pages about oneself: log in, register, password, account."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.views import LoginView as DjangoLoginView
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.translation import get_language
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST
from django.views.i18n import set_language

from accounts import attempts, invites, login_steps, password_reset, services, single_sign_on, usage_periods
from accounts.forms import LoginForm, PasswordForm, ProfileForm, RegisterForm
from accounts.models import UsageRecord, User, Wallet
from accounts.usage_charts import over_time
from llmplatform.lib.console.formats import rounded_credits


def _count_attempt(request: HttpRequest, what: str) -> HttpResponse | None:
    """A page that says to wait, when this address has tried too often."""
    try:
        attempts.count(what, request.META["REMOTE_ADDR"])
    except attempts.TooManyAttempts as error:
        return _too_many(request, error)
    return None


def _too_many(request: HttpRequest, error: attempts.TooManyAttempts) -> HttpResponse:
    context = {"status": 429, "title": _("Too many attempts"), "message": str(error)}
    headers = {"Retry-After": str(error.retry_after)}
    return HttpResponse(render_to_string("site/error.html", context, request), status=429, headers=headers)


class LoginView(DjangoLoginView):
    template_name = "accounts/login.html"
    authentication_form = LoginForm
    redirect_authenticated_user = True
    extra_context = {"mail": password_reset.is_possible, "provider": single_sign_on.provider_name}

    def form_invalid(self, form: Any) -> HttpResponse:
        response = super().form_invalid(form)
        if form.has_error(NON_FIELD_ERRORS, code="throttled"):
            response.status_code = 429
            response["Retry-After"] = str(form.retry_after)
        return response

    def form_valid(self, form: Any) -> HttpResponse:
        return login_steps.enter(self.request, form.get_user(), self.get_success_url())


@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def register(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("home")
    invite = request.POST.get("invite") or request.GET.get("invite", "")
    if request.method == "POST" and (wait := _count_attempt(request, "register")):
        return wait
    if settings.REGISTRATION == "closed" and not invites.is_open(invite):
        status = 403 if request.method == "POST" else 200
        return render(request, "accounts/register.html", {"invite_refused": bool(invite)}, status=status)
    form = RegisterForm(request.POST or None, initial={"invite": invite})
    if form.is_valid():
        try:
            user = services.register_user(**form.cleaned_data, language=get_language() or "")
        except ValidationError as error:
            form.add_error(None, error)
        else:
            return _welcome(request, user)
    return render(request, "accounts/register.html", {"form": form})


def _welcome(request: HttpRequest, user: User) -> HttpResponse:
    if not user.is_active:
        return render(request, "accounts/register.html", {"waits": True})
    login(request, user, backend=settings.AUTHENTICATION_BACKENDS[0])
    return redirect("home")


@sensitive_post_parameters()
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def password(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    if not user.has_usable_password() and not user.must_change_password:
        messages.info(request, _("This account has no password."))
        return redirect("account_security")
    form = PasswordForm(user, request.POST or None)
    if form.is_valid():
        forced = user.must_change_password
        try:
            _change_password(request, user, **form.cleaned_data)
        except attempts.TooManyAttempts as error:
            return _too_many(request, error)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            update_session_auth_hash(request, user)  # this session goes on; the user's others end
            messages.success(request, _("Your password is changed."))
            return redirect("home" if forced else "account")
    return render(request, "accounts/password.html", {"form": form})


def _change_password(request: HttpRequest, user: User, new_password: str, old_password: str | None = None) -> None:
    if old_password is not None:
        services.change_password(user, old_password, new_password, request.META["REMOTE_ADDR"])
        return
    try:
        validate_password(new_password, user)
    except ValidationError as error:
        raise ValidationError({"new_password": error.messages}) from error
    if user.check_password(new_password):
        raise ValidationError({"new_password": _("Choose a password other than the present one.")})
    services.set_password(user, new_password)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    user = _user(request)
    if request.method != "POST":
        return render(request, "accounts/account.html", _account_context(request, user, _profile_form(user)))
    form = ProfileForm(request.POST)
    if form.is_valid():
        try:
            services.update_profile(user, form.cleaned_data)
        except ValidationError as error:
            form.add_error(None, error)
        else:
            messages.success(request, _("Saved."))
            response: HttpResponse = redirect("account")
            login_steps.remember_language(response, user.language)
            return response
    return render(request, "accounts/account.html", _account_context(request, user, form))


def _profile_form(user: User) -> ProfileForm:
    return ProfileForm(initial={"email": user.email, "language": user.language})


@require_POST
@login_required
def access_token(request: HttpRequest) -> HttpResponse:
    """Show a token for the API once, in the example that uses it."""
    user = _user(request)
    context = _account_context(request, user, _profile_form(user))
    context["token"] = services.console_token(user)
    response = render(request, "accounts/account.html", context)
    response["Cache-Control"] = "no-store"
    return response


@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """Django's own language switch; a person who is logged in keeps the choice."""
    response = set_language(request)
    chosen = request.POST.get("language", "")
    if request.user.is_authenticated and chosen in dict(settings.LANGUAGES):
        services.choose_language(_user(request), chosen)
    return response


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - login_required stands before
    return request.user


def _account_context(request: HttpRequest, user: User, form: ProfileForm) -> dict[str, Any]:
    wallet = Wallet.objects.filter(user=user).first()
    usage = over_time(usage_periods.named("30days"), user_id=user.pk)
    price = settings.TOKEN_PRICE
    return {
        "page": "account",
        "form": form,
        "wallet": wallet,
        "credits": rounded_credits(wallet.available if wallet else 0),
        "held_credits": rounded_credits(wallet.held) if wallet and wallet.held else "",
        "tokens": wallet.available // price if wallet and price else None,
        "usage": usage.report.totals,
        "used_credits": rounded_credits(usage.report.totals.cost),
        "charts": [one for one in usage.charts() if one.key == "tokens"],
        "model_name": _last_model(user),
        "base_url": request.build_absolute_uri("/v1"),
    }


def _last_model(user: User) -> str:
    names = UsageRecord.objects.filter(user=user).order_by("-created_at").values_list("model_name", flat=True)
    return names.first() or ""
