"""The GGUF files that are there, as the first step shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from llmplatform.lib.console import formats
from models_app import model_folder, reasons
from models_app.gguf import MODELS, GgufFacts
from models_app.model_folder import ModelFile
from models_app.models import ModelConfig
from models_app.wizard.fits import preselected


@dataclass(frozen=True)
class FileRow:
    name: str
    summary: str
    rejected: str
    used_by: str
    is_model: bool
    fits: bool


def rows() -> list[FileRow]:
    users = _users()
    return [_row(file, ", ".join(users.get(file.name, []))) for file in model_folder.files()]


def _row(file: ModelFile, used_by: str) -> FileRow:
    return FileRow(
        name=file.name,
        summary=summary(file.facts) if file.facts else formats.size(file.size),
        rejected=file.why_rejected,
        used_by=used_by,
        is_model=file.facts is not None and file.facts.kind in MODELS,
        fits=preselected(file.fits) is not None,
    )


def _users() -> dict[str, list[str]]:
    """Names of models by their file, seen from the models folder."""
    users: dict[str, list[str]] = {}
    for name, file, path in ModelConfig.objects.values_list("name", "file", "path"):
        folder = path.strip("/").removeprefix("models").strip("/")
        users.setdefault(f"{folder}/{file}".lstrip("/"), []).append(name)
    return users


def summary(facts: GgufFacts) -> str:
    parts: list[Any] = [
        reasons.KINDS[facts.kind],
        facts.architecture,
        facts.quantization,
        formats.size(facts.size),
        _("%(number)s parameters") % {"number": formats.number(facts.parameters)} if facts.parameters else "",
    ]
    if facts.context_length:
        parts.append(_("trained for %(number)s tokens") % {"number": formats.number(facts.context_length)})
    return " · ".join(str(part) for part in parts if part)
