"""Console page for what each model costs and how much of it may be asked for: all models there are, with or without rules."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts import prices
from accounts.admin.fields import LimitField
from accounts.models import ModelPolicy
from llmplatform.lib.console import formats
from llmplatform.lib.console.admin import ReadOnlyAdmin
from llmplatform.lib.console.pages import add_errors, own_path, page
from llmplatform.lib.model_names import model_names

THOUSAND, MILLION = 1_000, 1_000_000


class PolicyForm(forms.Form):
    """A micro-credit for a token is a credit for a million: the form's numbers are the table's."""

    prompt_price = LimitField(
        label=gettext_lazy("Prompt: credits for 1 million tokens"), max_value=prices.LARGEST_PRICE
    )
    cached_price = LimitField(
        label=gettext_lazy("Prompt read before (cached): credits for 1 million tokens"),
        max_value=prices.LARGEST_PRICE,
        help_text=gettext_lazy("Empty: like the rest of the prompt."),
    )
    completion_price = LimitField(
        label=gettext_lazy("Answer: credits for 1 million tokens"), max_value=prices.LARGEST_PRICE
    )
    requests_per_minute = LimitField(label=gettext_lazy("Requests per minute"))
    tokens_per_minute = LimitField(label=gettext_lazy("Tokens per minute"))
    concurrent_requests = LimitField(label=gettext_lazy("Requests at once"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        default = formats.number(prices.default_price().prompt)
        for name in ("prompt_price", "completion_price"):
            self.fields[name].help_text = _("Empty: %(price)s, by TOKEN_RATE. 0: free.") % {"price": default}
        for name in prices.LIMITS:
            self.fields[name].help_text = _("Of everybody together. Empty: no limit.")

    def changes(self) -> dict[str, int | None]:
        filled = self.cleaned_data
        return {
            **{name: filled[name] for name in prices.PRICES},
            **{name: filled[name] or 0 for name in prices.LIMITS},
        }


@admin.register(ModelPolicy)
class ModelPolicyAdmin(ReadOnlyAdmin):
    """Its list has a row for every model, not for every row of the table: models without rules have none."""

    administrators_only = True

    def get_urls(self) -> list[URLPattern]:
        return [own_path(self, "set/", self.set_view, "set"), *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        rules, there = prices.policies(), model_names()
        names = sorted({*there, *rules})
        rows = [_row(name, rules.get(name), name in there) for name in names]
        return page(
            self,
            request,
            "console/prices.html",
            _("Prices and limits"),
            opts=self.opts,
            rows=rows,
            default=formats.number(prices.default_price().prompt),
        )

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        if not self.has_view_permission(request) or object_id is None:
            raise PermissionDenied
        row = self.get_object(request, object_id)
        if row is None:
            raise Http404
        return HttpResponseRedirect(_set_url(row.model_name))

    def set_view(self, request: HttpRequest) -> HttpResponse:
        name = request.GET.get("model", "")
        row = ModelPolicy.objects.filter(model_name=name).first() if name.isprintable() else None
        if row is None and name not in model_names():
            raise Http404
        initial = {field: getattr(row, field) for field in prices.PRICES} if row else {}
        initial |= {field: getattr(row, field) or None for field in prices.LIMITS} if row else {}
        form = PolicyForm(request.POST or None, initial=initial)
        if request.method == "POST" and form.is_valid():
            try:
                prices.set_policy(name, form.changes())
            except ValidationError as error:
                add_errors(form, error)
            else:
                messages.success(request, _("%(model)s: prices and limits were saved.") % {"model": name})
                return HttpResponseRedirect(reverse("admin:accounts_modelpolicy_changelist"))
        text = _("Prices and limits of this model, for requests that begin from now on.")
        return page(
            self,
            request,
            "console/form.html",
            name,
            form=form,
            form_submit_text=_("Save"),
            dialog={"description": text},
        )


def _set_url(name: str) -> str:
    return f"{reverse('admin:accounts_modelpolicy_set')}?{urlencode({'model': name})}"


def _row(name: str, policy: prices.Policy | None, exists: bool) -> dict[str, Any]:
    shown = policy or prices.default_policy()
    price = shown.price
    return {
        "name": name,
        "url": _set_url(name),
        "exists": exists,
        "own": policy is not None,
        "prices": [_price(amount) for amount in (price.prompt, price.cached, price.completion)],
        "limits": formats.limits(shown.limit.requests, shown.limit.tokens, shown.limit.concurrent),
    }


def _price(amount: int) -> dict[str, str]:
    """``amount`` in micro-credits for a token."""
    if not amount:
        return {"thousand": _("free"), "million": ""}
    return {
        "thousand": formats.credits(amount * THOUSAND),
        "million": _("%(credits)s for 1 million") % {"credits": formats.number(amount * MILLION // formats.MICRO)},
    }
