"""Console actions. Unfold runs them on GET, which any page elsewhere could make an operator's browser send; ours ask in a
dialog first and act on its POST, which carries the CSRF token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm


def confirmed_action(
    *,
    title: Any,
    text: Any,
    submit: Any,
    icon: str,
    permissions: Iterable[str] = ("operate",),
    variant: ActionVariant = ActionVariant.DEFAULT,
    form_class: type[BaseDialogForm] = BaseDialogForm,
    description: Any = None,
) -> Callable[[Callable[..., Any]], Any]:
    """An Unfold action (row, detail) that runs after the person has said yes, or has filled in ``form_class``."""
    decorator = action(
        description=description or title,
        icon=icon,
        permissions=list(permissions),
        variant=variant,
        dialog={"title": title, "description": text, "form_class": form_class, "form_submit_text": submit},
    )
    return decorator  # type: ignore[no-any-return]


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


def say(request: HttpRequest, problem: str | None, done: str) -> None:
    """One sentence on the next page: what was done, or why not."""
    if problem:
        messages.error(request, problem)
    else:
        messages.success(request, done)
