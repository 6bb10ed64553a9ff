"""Console actions. Unfold runs them on GET, which any page elsewhere could make an operator's browser send; ours ask in a
dialog first and act on its POST, which carries the CSRF token. Opened without htmx (a middle click), the dialog is a page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django import forms
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from llmplatform.lib.console.pages import page

NAMED_AT_ONCE = 50  # of the rows that an action is about; the rest are counted


class NamedDialogForm(BaseDialogForm):
    """A dialog that says what it is about: the name of the row it was opened on (``target``)."""

    target: Any

    def __init__(self, *args: Any, target: Model, **kwargs: Any) -> None:
        self.target = target
        super().__init__(*args, **kwargs)

    def render_before_template(self) -> str:
        return format_html('<p class="c-what">{}</p>', self.target)


def confirmed_action(
    *,
    title: Any,
    text: Any,
    submit: Any,
    icon: str,
    permissions: Iterable[str] = ("operate",),
    variant: ActionVariant = ActionVariant.DEFAULT,
    form_class: type[NamedDialogForm] = NamedDialogForm,
    window: bool = True,
) -> Callable[[Callable[..., HttpResponse | None]], Any]:
    """An Unfold action (row, detail) that runs after the person has said yes, or has filled in ``form_class``.

    An action that answers None has added what is wrong to the form, which is then shown again. Without ``window`` the dialog is
    a page always: for actions that answer with a page of their own.
    """
    dialog = {"title": title, "description": text, "form_submit_text": submit}

    def decorator(act: Callable[..., HttpResponse | None]) -> Any:
        @wraps(act)
        def ask(model_admin: Any, request: HttpRequest, object_id: str) -> HttpResponse:
            target = model_admin.get_object(request, object_id)
            if target is None:
                raise Http404
            form = form_class(data=request.POST or None, request=request, object_id=object_id, target=target)
            if request.method == "POST" and form.is_valid():
                answer = act(model_admin, request, form, object_id)
                if answer is not None:
                    return answer
            context = {"dialog": dialog, "form": form, "form_submit_text": submit}
            if request.headers.get("HX-Request"):
                return TemplateResponse(request, "unfold/helpers/dialog.html", context)
            return page(model_admin, request, "console/form.html", title, object=target, **context)

        made = action(description=title, icon=icon, permissions=list(permissions), variant=variant)(ask)
        if window:
            made.dialog = dialog  # makes Unfold's links open a window
        return made

    return decorator


def asked_for_all(
    model_admin: Any,
    request: HttpRequest,
    chosen: QuerySet[Any],
    *,
    title: Any,
    text: Any,
    submit: Any,
    form_class: type[forms.Form] = forms.Form,
) -> forms.Form | HttpResponse:
    """For actions on many rows that cannot be undone or need to know more: the page that asks first, or, once it was answered,
    the form as it was filled in."""
    confirmed = bool(request.POST.get("confirmed"))
    form = form_class(request.POST if confirmed else None)
    if confirmed and form.is_valid():
        return form
    names = [str(row) for row in chosen[:NAMED_AT_ONCE]]
    count = len(names) if len(names) < NAMED_AT_ONCE else chosen.count()
    return page(
        model_admin,
        request,
        "console/confirm_many.html",
        title,
        text=text,
        submit=submit,
        form=form,
        names=names,
        others=count - len(names),
        action=request.POST.get("action", ""),
        across=request.POST.get("select_across", "0"),
        selected=request.POST.getlist(ACTION_CHECKBOX_NAME),
        checkbox_name=ACTION_CHECKBOX_NAME,
    )


def back(request: HttpRequest, url: str) -> HttpResponse:
    """Where to go after a dialog: htmx must be told in a header, since it follows redirects inside its own request."""
    if request.headers.get("HX-Request"):
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)


def origin(request: HttpRequest, fallback: str) -> str:
    """The console page the dialog was opened on, or the button was pressed on; never another site's."""
    current = request.headers.get("HX-Current-URL") or request.headers.get("Referer", "")
    own = request.build_absolute_uri("/admin/")
    return current if current.startswith(own) and urlsplit(current).path != request.path else fallback
