"""The form for a model: what each setting means, and the GGUF files that are there to choose from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from django import forms
from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldBooleanSwitchWidget

from accounts.admin.fields import LimitField, SelectField
from llmplatform.lib.console.actions import NamedDialogForm
from models_app import config_file, names
from models_app.models import ModelConfig, TuningRun
from models_app.tuning import runs

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
    "policy": gettext_lazy("Always running, or loaded at the first request and unloaded when nobody uses it."),
    "ttl": gettext_lazy(
        "Only on demand: seconds without requests after which it is unloaded. Empty: as ON_DEMAND_TTL says."
    ),
    "pinned": gettext_lazy("Only on demand: once loaded, it is not unloaded to make room for another model."),
    "run_group": gettext_lazy("Only on demand: of models that have the same word here, only one is loaded at a time."),
    "embeddings": gettext_lazy("For models that turn text into vectors instead of answering."),
    "description": gettext_lazy("Shown to people who choose a model."),
    "rerank": gettext_lazy("For models that say how well texts answer a question."),
    "batch_threads": gettext_lazy("While a prompt is read. Empty: as many as for answers."),
    "ubatch": gettext_lazy("More read long prompts faster and take more memory. Empty: 512."),
    "cache_type": gettext_lazy("How exactly the context is kept in memory."),
    "prompt_cache": gettext_lazy(
        "For conversations that were put aside, so that they need not be read again. 0: none."
    ),
    "flash_attention": gettext_lazy("Another way to compute the context; needed for 4 and 8 bits."),
    "speculative": gettext_lazy("Several words are guessed and checked at once: faster where text repeats itself."),
    "draft_file": gettext_lazy("A small model of the same family that guesses, in the folder of the model."),
    "mmproj_file": gettext_lazy("The second file of a model that sees pictures, in the folder of the model."),
    "lora": gettext_lazy('A list such as [{"file": "style.gguf", "scale": 1.0}]; the files lie beside the model.'),
    "cores": gettext_lazy(
        "Processors such as 0-7,16-23, which its replicas share out. Empty: chosen for this machine."
    ),
    "numa": gettext_lazy("For machines with several NUMA nodes, as llama.cpp's --numa; without named cores only."),
    "chat_template": gettext_lazy("How a conversation becomes text (Jinja). Empty: as the model itself says."),
    "is_default": gettext_lazy("Answers requests that name no model. Whichever was the default before no longer is."),
    "system_prompt": gettext_lazy("Stands first in every chat that brings no system prompt of its own."),
    "aliases": gettext_lazy("Other names that clients may write, with commas or one a line."),
    "traffic": gettext_lazy(
        "Another model and its percentage of this model's conversations, one a line: “tiny-v2 10”. The rest stays here."
    ),
}


def gguf_files() -> list[str]:
    """File names of the models folder that could be models."""
    folder = Path(settings.MODELS_PATH)
    try:
        return sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".gguf" and path.is_file())
    except OSError:
        return []


class NamesField(forms.CharField):
    """A list of names, as people type them."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 2})

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return value if isinstance(value, list) else re.findall(r"[^\s,;，、；]+", str(value or ""))


class SharesField(forms.CharField):
    """A model and a percentage on each line."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 2})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(f"{name} {share}" for name, share in value.items()) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        shares: dict[str, int] = {}
        for line in filter(str.strip, str(value or "").splitlines()):
            found = re.fullmatch(r"\s*(\S+)\s+([0-9]{1,3})\s*%?\s*", line)
            if found is None or found[1] in shares:
                raise forms.ValidationError(_("On each line one model and its percentage, such as “tiny-v2 10”."))
            shares[found[1]] = int(found[2])
        return shares


class ModelConfigForm(forms.ModelForm):  # type: ignore[type-arg]
    file = forms.ChoiceField(label=gettext_lazy("GGUF file"), widget=UnfoldAdminSelectWidget())
    aliases = NamesField(label=gettext_lazy("aliases"), required=False)
    traffic = SharesField(label=gettext_lazy("traffic share"), required=False)

    class Meta:
        model = ModelConfig
        fields = (
            "name", "file", "description", "active", "replicas", "slots", "context_length", "threads", "gpu_layers",
            "policy", "ttl", "pinned", "run_group",
            "embeddings", "rerank", "max_tokens", "temperature", "top_p", "repeat_penalty", "chat_template",
            "batch_threads", "ubatch", "cache_type", "prompt_cache", "flash_attention", "speculative", "draft_file",
            "mmproj_file", "lora", "cores", "numa", "aliases", "is_default", "system_prompt", "traffic",
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
        if not self.errors:
            values = {key.field: getattr(self.instance, key.field) for key in config_file.KEYS.values()} | cleaned
            problems = config_file.problems_together(values) or names.problems_beside_others(values)
            for field, problem in problems.items():
                self.add_error(field if field in self.fields else None, problem)
        return cleaned

    def settings(self) -> dict[str, Any]:
        """What was filled in, by the names of the table's columns."""
        columns = {field.name for field in ModelConfig._meta.fields}
        return {name: value for name, value in self.cleaned_data.items() if name in columns}


class TuneForm(NamedDialogForm):
    aim = SelectField(label=gettext_lazy("Best for"), choices=TuningRun.Aim.choices, initial=TuningRun.Aim.THROUGHPUT)
    clients = LimitField(
        label=gettext_lazy("People at once"), min_value=1, max_value=runs.MOST_CLIENTS, initial=4, required=True
    )
    seconds = LimitField(
        label=gettext_lazy("Longest time (seconds)"),
        min_value=runs.SHORTEST,
        max_value=runs.LONGEST,
        initial=240,
        required=True,
    )
    apply = forms.BooleanField(label=gettext_lazy("Use the result"), required=False, widget=UnfoldBooleanSwitchWidget)

    def wish(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in ("aim", "clients", "seconds", "apply")}
