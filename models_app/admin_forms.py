"""The form for a model: what each setting means, and the GGUF files that are there to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminSelectWidget

from models_app import config_file
from models_app.models import ModelConfig

HELP = {
    "name": gettext_lazy("What clients write as “model”. It cannot be changed later."),
    "context_length": gettext_lazy(
        "Tokens of question and answer together. Empty: chosen for the model and the memory."
    ),
    "max_tokens": gettext_lazy("Where an answer is cut off when the client asks for no other limit."),
    "threads": gettext_lazy("Processor threads per replica. Empty: chosen for this machine."),
    "gpu_layers": gettext_lazy("0 on machines without a graphics card."),
    "replicas": gettext_lazy("How many copies run at once. Each takes the memory of the whole model."),
    "slots": gettext_lazy("Requests one replica answers at the same time; they share its processor time."),
    "active": gettext_lazy("Off: the model is stopped and stays stopped."),
    "temperature": gettext_lazy(
        "0: always the likeliest word. About 0.7: livelier. Clients may ask for another value."
    ),
    "top_p": gettext_lazy("Only words that together are this likely are considered."),
    "repeat_penalty": gettext_lazy("Above 1: the model is kept from repeating itself."),
    "embeddings": gettext_lazy("For models that turn text into vectors instead of answering."),
    "description": gettext_lazy("Shown to people who choose a model."),
}


def gguf_files() -> list[str]:
    """File names of the models folder that could be models."""
    folder = Path(settings.MODELS_PATH)
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf" and path.is_file())
    except OSError:
        return []


class ModelConfigForm(forms.ModelForm):  # type: ignore[type-arg]
    file = forms.ChoiceField(label=gettext_lazy("GGUF file"), widget=UnfoldAdminSelectWidget())

    class Meta:
        model = ModelConfig
        fields = (
            "name", "file", "description", "active", "replicas", "slots", "context_length", "threads", "gpu_layers",
            "policy", "embeddings", "max_tokens", "temperature", "top_p", "repeat_penalty",
        )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, text in HELP.items():
            if name in self.fields:
                self.fields[name].help_text = text
        if "description" in self.fields:
            self.fields["description"].widget.attrs["rows"] = 3
        if "file" in self.fields:
            self._offer_files()

    def _offer_files(self) -> None:
        there, current = gguf_files(), self.instance.file
        choices = [(name, name) for name in there]
        if current and current not in there:
            choices.insert(0, (current, current))
        if not choices:
            choices = [("", _("no .gguf file there yet"))]
        field = self.fields["file"]
        field.choices = choices  # type: ignore[attr-defined]
        field.help_text = _("A file in %(folder)s. Put new ones there and reload this page.") % {
            "folder": settings.MODELS_PATH
        }

    def clean(self) -> dict[str, Any]:
        """What model_config.json does not allow is told beside its field, before anything is written."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        for key in config_file.KEYS.values():
            if key.field in cleaned:
                try:
                    key.check(cleaned[key.field])
                except config_file.BadValue as error:
                    self.add_error(key.field, str(error))
        return cleaned

    def settings(self) -> dict[str, Any]:
        """What was filled in, by the names of the table's columns."""
        columns = {field.name for field in ModelConfig._meta.fields}
        return {name: value for name, value in self.cleaned_data.items() if name in columns}
