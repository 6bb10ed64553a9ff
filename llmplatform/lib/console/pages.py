"""Console pages that are neither a list nor a form of one row, and forms that must take effect once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django import forms
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _

Result = TypeVar("Result")

NONCES_KEPT = 50
SESSION_KEY = "console_done"


def page(model_admin: Any, request: HttpRequest, template: str, title: Any, **context: Any) -> TemplateResponse:
    """A page of ``model_admin`` within the console: menu, header, messages. ``object`` is the row it is about, if any."""
    opts = model_admin.opts
    frame = {
        **model_admin.admin_site.each_context(request),
        "model_admin": model_admin,
        "list_url": reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist"),
        "title": title,
    }
    return TemplateResponse(request, template, {**frame, **context})


def own_path(model_admin: Any, route: str, view: Callable[..., HttpResponseBase], name: str) -> URLPattern:
    """A path below the page's own, for those who may operate it; it goes before Django's."""

    def permitted(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not model_admin.has_operate_permission(request):
            raise PermissionDenied
        return view(request, *args, **kwargs)

    opts = model_admin.opts
    name = f"{opts.app_label}_{opts.model_name}_{name}"
    pattern: URLPattern = path(route, model_admin.admin_site.admin_view(permitted), name=name)
    return pattern


# -- forms -----------------------------------------------------------------------------------------------------------


def add_errors(form: forms.BaseForm, error: ValidationError, names: Mapping[str, str] | None = None) -> None:
    """What a service found wrong, beside the fields it is about. ``names``: the form's name for a service's."""
    if not hasattr(error, "error_dict"):
        form.add_error(None, error)
        return
    for name, messages_of_field in error.message_dict.items():
        field = (names or {}).get(name, name)
        form.add_error(field if field in form.fields else None, list(messages_of_field))


class OnceForm(forms.Form):
    """A form that takes effect once, however often it is sent: two clicks, a reload, the browser's “back”. See ``once``."""

    once = forms.CharField(max_length=32, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["once"].initial = uuid.uuid4().hex


def once(request: HttpRequest, form: OnceForm, act: Callable[[], Result]) -> Result | None:
    """What ``act`` returns; None, with a message to the person, when this very form was sent before.

    An ``act`` that raises has not happened: the form may be sent again.
    """
    with transaction.atomic():
        if _first_time(request, form.cleaned_data["once"]):
            return act()
    messages.info(request, _("This was done already: nothing was done a second time."))
    return None


def _first_time(request: HttpRequest, nonce: str) -> bool:
    """The lock on the person's own row makes the second of two clicks wait for the first, on every web process."""
    get_user_model()._default_manager.select_for_update().get(pk=request.user.pk or 0)
    stored = request.session.__class__(request.session.session_key)
    done: list[str] = stored.get(SESSION_KEY, [])
    if nonce in done:
        return False
    done = [*done, nonce][-NONCES_KEPT:]
    stored[SESSION_KEY] = done
    stored.save()
    # What this request itself may store at its end must not take it away again, nor tell of what was rolled back.
    transaction.on_commit(lambda: request.session.update({SESSION_KEY: done}))
    return True
