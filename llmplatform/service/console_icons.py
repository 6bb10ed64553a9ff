"""The console's icon font: Unfold's own (292 KB, 4,000 icons) cut down to the icons our pages use (a twentieth of it).

Made at start into ``run/``, since no third-party file lies in the repository, and only when Unfold or a file that may name
an icon changed. A process of its own does the cutting: it takes memory that nobody else needs, and when it fails the whole font
serves as well.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import FileSystemFinder
from django.core.checks import CheckMessage
from django.core.files.storage import FileSystemStorage

from llmplatform.lib.configuration import PROJECT_DIR
from llmplatform.service.run_folder import replace_file

logger = logging.getLogger(__name__)

FONT = "static/unfold/fonts/material-symbols/Material-Symbols-Outlined.woff2"
APPS = ("accounts", "cluster", "llmplatform", "models_app")
WORD = re.compile(r"[a-z][a-z0-9_]{2,}")
CUTTING_MAY_TAKE = 60.0  # seconds


class Finder(FileSystemFinder):
    """Static files that are made and not written: ``console/icons.woff2``. Makes them when somebody wants the list."""

    def __init__(self, app_names: object = None) -> None:
        self.folder = Path(settings.RUN_DIR) / "made-static"
        self.locations = [("", str(self.folder))]
        self.storages = {str(self.folder): FileSystemStorage(location=self.folder)}

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        return []  # the folder appears with the first list

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, FileSystemStorage]]:
        make(self.folder / "console" / "icons.woff2")
        yield from super().list(ignore_patterns)


def make(target: Path) -> None:
    """Writes the font unless it is there and current."""
    stamp = target.with_name(f".{target.name}.stamp")
    wanted = _fingerprint()
    if target.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.new")
    command = [sys.executable, "-m", "llmplatform.service.icon_cutter", str(scratch), str(unfold_folder() / FONT)]
    try:
        words = "\n".join(sorted(used_words()))
        subprocess.run(
            command, input=words, text=True, cwd=PROJECT_DIR, check=True, capture_output=True, timeout=CUTTING_MAY_TAKE
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("the icon font could not be cut, the whole one is used: %s", error)
        shutil.copyfile(unfold_folder() / FONT, scratch)
    scratch.replace(target)
    replace_file(stamp, wanted)


def unfold_folder() -> Path:
    """Without importing it: it needs Django's applications."""
    spec = find_spec("unfold")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("unfold")
    return Path(spec.origin).parent


def used_words() -> set[str]:
    """Every word that stands where an icon may be named; too many rather than too few, an icon is 100 bytes."""
    return {word for path in _sources() for word in WORD.findall(path.read_text(encoding="utf-8"))}


def _sources() -> Iterator[Path]:
    unfold = unfold_folder()
    yield from (unfold / "sites.py", unfold / "templatetags" / "unfold.py")
    for folder in (unfold / "templates", PROJECT_DIR / "templates"):
        yield from folder.rglob("*.html")
    for app in APPS:
        yield from (path for path in (PROJECT_DIR / app).rglob("*.py") if "tests" not in path.parts)


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{version('django-unfold')} {version('fonttools')}\n".encode())
    for path in sorted(_sources()):
        status = path.stat()
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
