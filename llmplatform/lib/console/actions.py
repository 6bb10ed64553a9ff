"""Console actions. Unfold runs them on GET, which any page elsewhere could make an operator's browser send; ours ask in a
dialog first and act on its POST, which carries the CSRF token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm


class NamedDialogForm(BaseDialogForm):
    """A dialog that says what it is about: the name of the row it was opened on."""

    object_model: type[Model]

    def render_before_template(self) -> str:
        found = self.object_model._default_manager.filter(pk=self.object_id).first()
        return format_html('<p class="c-what">{}</p>', found) if found else ""


def confirmed_action(
    *,
    model: type[Model],
    title: Any,
    text: Any,
    submit: Any,
    icon: str,
    permissions: Iterable[str] = ("operate",),
    variant: ActionVariant = ActionVariant.DEFAULT,
    form_class: type[NamedDialogForm] = NamedDialogForm,
) -> Callable[[Callable[..., Any]], Any]:
    """An Unfold action (row, detail) that runs after the person has said yes, or has filled in ``form_class``."""
    dialog_form = type(form_class.__name__, (form_class,), {"object_model": model})
    return action(  # type: ignore[no-any-return]
        description=title,
        icon=icon,
        permissions=list(permissions),
        variant=variant,
        dialog={"title": title, "description": text, "form_class": dialog_form, "form_submit_text": submit},
    )


def back(request: HttpRequest, url: str) -> HttpResponse:
    """Where to go after a dialog: htmx must be told in a header, since it follows redirects inside its own request."""
    if request.headers.get("HX-Request"):
        return HttpResponse(headers={"HX-Redirect": url})
    return HttpResponseRedirect(url)


def origin(request: HttpRequest, fallback: str) -> str:
    """The console page the dialog was opened on."""
    current = request.headers.get("HX-Current-URL", "")
    own = request.build_absolute_uri("/admin/")
    return current if current.startswith(own) else fallback
