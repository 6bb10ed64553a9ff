"""The third step's form: the model's own, without its file, which was chosen before; what most people need first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.http import HttpRequest

from models_app.admin_forms import ModelConfigForm
from models_app.models import ModelConfig

FIRST = ("name", "context_length", "slots", "policy")
Group = tuple[Any, list[forms.BoundField]]


class NewModelForm(ModelConfigForm):
    file = None  # type: ignore[assignment]  # how Django takes a field out of a form


def form_class(model_admin: Any, request: HttpRequest) -> type[NewModelForm]:
    """With the widgets of the model's page, and each field that this has."""
    names = [name for _title, options in model_admin.fieldsets for name in options["fields"] if name != "file"]
    made: type[NewModelForm] = model_admin.get_form(request, None, form=NewModelForm, fields=names)
    return made


def first(form: forms.ModelForm[ModelConfig]) -> list[forms.BoundField]:
    return [form[name] for name in FIRST]


def more(model_admin: Any, form: forms.ModelForm[ModelConfig]) -> list[Group]:
    """The other fields, in the groups of the model's page."""
    groups: Iterable[Group] = (
        (title, [form[name] for name in options["fields"] if name in form.fields and name not in FIRST])
        for title, options in model_admin.fieldsets
    )
    return [(title, fields) for title, fields in groups if fields]


def changed(fields: dict[str, Any], touched: Iterable[str]) -> dict[str, Any]:
    """Those that are not as they would be anyway, and those that somebody has touched: of a file that is not there yet, nobody
    knows yet what it says itself."""
    usual = {field.name: field.get_default() for field in ModelConfig._meta.fields}
    kept = set(touched)
    return {name: value for name, value in fields.items() if name in kept or value != usual.get(name)}
