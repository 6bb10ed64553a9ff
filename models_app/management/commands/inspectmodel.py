"""``inspectmodel FILE``: what a GGUF file is, whether it is sound, and with which settings it fits on this machine."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from llmplatform.lib.console import formats
from llmplatform.lib.early_messages import terminal_language
from models_app import model_folder
from models_app.gguf import GgufFacts
from models_app.model_folder import ModelFile
from models_app.reasons import KINDS


class Command(BaseCommand):
    help = gettext_lazy(  # type: ignore[assignment]
        "Look into a GGUF file: what it is, whether it is sound, how much memory it takes. Ends with 1 when it is rejected."
    )
    # It needs neither the database nor anything else that may be missing.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help=_("a path, or a name in the models folder"))
        parser.add_argument("--json", action="store_true", help=_("as one JSON object"))

    def handle(self, *args: Any, **options: Any) -> None:
        path = Path(options["file"])
        if not path.exists() and (Path(settings.MODELS_PATH) / path).exists():
            path = Path(settings.MODELS_PATH) / path
        with translation.override(terminal_language()):
            file = model_folder.look_at(path.absolute(), path.name, model_folder.usable_memory())
            if options["json"]:
                self.stdout.write(json.dumps(model_folder.file_object(file), ensure_ascii=False))
            elif file.facts is None:
                self.stderr.write(_("rejected: %(reason)s") % {"reason": file.why_rejected})
            else:
                self._show(file, file.facts)
        if file.rejected:
            sys.exit(1)

    def _show(self, file: ModelFile, facts: GgufFacts) -> None:
        lines = {
            _("file"): file.name,
            _("kind"): str(KINDS[facts.kind]),
            _("name"): facts.name,
            _("architecture"): facts.architecture,
            _("parameters"): formats.number(facts.parameters),
            _("quantisation"): facts.quantization,
            _("size"): formats.size(facts.size),
            _("parts"): facts.parts if facts.parts > 1 else "",
            _("context trained for"): formats.number(facts.context_length) if facts.context_length else "",
            _("layers"): facts.layers or "",
            _("vocabulary"): formats.number(facts.vocabulary) if facts.vocabulary else "",
            _("experts"): f"{facts.experts_used}/{facts.experts}" if facts.experts else "",
            _("chat template"): _("yes") if facts.chat_template else _("no"),
        }
        for title, value in lines.items():
            if value != "":
                self.stdout.write(f"{title}: {value}")
        for fit in file.fits:
            words = _("%(slots)s × %(context)s tokens, %(type)s: %(memory)s, %(verdict)s")
            verdict = _("fits now") if fit.fits else _("does not fit now")
            sizes = {"context": formats.number(fit.context_length), "memory": formats.size(fit.needed)}
            self.stdout.write(words % {"slots": fit.slots, "type": fit.cache_type, "verdict": verdict, **sizes})
