"""Filters of console lists that are filled in instead of chosen from links: a drop-down with many entries, a name, two days."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from django import forms
from django.contrib.admin import ListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model
from django.http import HttpRequest


class FormFilter(ListFilter):
    """Shows a small form; ``form_class`` says which parameters there are. What is not valid filters nothing.

    For pages with ``list_filter_submit``, whose filters are sent together.
    """

    template = "console/filter_form.html"
    form_class: ClassVar[type[forms.Form]]

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: type[Model], model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        for name in self.form_class.base_fields:
            if values := params.pop(name, None):
                self.used_parameters[name] = values[-1]
        self.form = self.form_class(data=self.used_parameters)
        self.values: dict[str, Any] = self.form.cleaned_data if self.form.is_valid() else {}

    def expected_parameters(self) -> list[str | None]:
        return list(self.form_class.base_fields)

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        yield {"form": self.form}
