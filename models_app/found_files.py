"""The GGUF files of the models folder, and the entry that each of them gets without anybody saying more."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from django.conf import settings

from models_app import config_file, gguf, inspection


def gguf_files() -> list[Path]:
    """Starter model first, then by name; of a model in parts only the first part."""
    files = [file for file in settings.MODELS_PATH.glob("*.gguf") if file.is_file()]
    first_parts = [file for file in files if (part := gguf.SPLIT_NAME.search(file.name)) is None or int(part[1]) == 1]
    models = [file for file in first_parts if not _belongs_to_another(file)]
    return sorted(models, key=lambda file: (not file.name.startswith("SmolLM2-135M"), file.name))


def _belongs_to_another(file: Path) -> bool:
    """A projector or an adapter. What is rejected counts as a model: starting it says what is wrong."""
    try:
        return inspection.facts_of(file).kind in (gguf.PROJECTOR, gguf.ADAPTER)
    except (gguf.GgufError, OSError):
        return False


def free_name(stem: str, taken: Collection[str]) -> str:
    """A model's name out of a file's, that is not among ``taken``."""
    base = re.sub(r"[^a-z0-9._]+", "-", stem.lower()).strip("._-")[:120] or "model"
    return next(name for number in range(1, 1000) if (name := base if number == 1 else f"{base}-{number}") not in taken)


def entry_for_file(file: Path, name: str, **settings_: Any) -> dict[str, Any]:
    """An entry for a GGUF file, with what the file itself says."""
    values: dict[str, Any] = {key.field: key.default for key in config_file.KEYS.values()}
    try:
        facts = inspection.facts_of(file)
        values["embeddings"] = facts.kind in (gguf.EMBEDDING, gguf.RERANK)
        values["rerank"] = facts.kind == gguf.RERANK
        values["description"] = " ".join(filter(None, (facts.name, facts.quantization)))
    except (gguf.GgufError, OSError):  # it gets its entry all the same; starting it says what is wrong
        pass
    values.update(name=name, file=file.name, **settings_)
    if file.name.startswith("SmolLM2-135M-Instruct"):
        values.update(STARTER_SETTINGS)
    return config_file.entry_for(values)


# Small models repeat themselves soon; these keep the starter model's answers readable.
STARTER_SETTINGS = {
    "name": "smollm2-135m-instruct",
    "context_length": 4096,
    "max_tokens": 1024,
    "temperature": 0.2,
    "top_p": 0.9,
    "repeat_penalty": 1.1,
    "slots": 2,
    "description": "SmolLM2 135M Instruct (Apache-2.0)",
}
