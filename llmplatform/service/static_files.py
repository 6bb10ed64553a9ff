"""Static files are collected, hashed and compressed only when they changed: it takes seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import django
import servestatic
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command

import llmplatform
from llmplatform.lib import static_storage
from llmplatform.service.run_folder import replace_file

STAMP = ".collected"
# What packages bring and no page of ours uses.
UNUSED = ("rest_framework", "redoc")


def collect_if_changed() -> bool:
    """Whether anything was done. The folder holds only what is current: it is emptied first."""
    stamp = Path(settings.STATIC_ROOT) / STAMP
    wanted = fingerprint()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return False
    call_command(
        "collectstatic", interactive=False, clear=True, verbosity=0, ignore_patterns=[*UNUSED]
    )  # a list that it adds to
    replace_file(stamp, wanted)
    return True


def fingerprint() -> str:
    """Changes when a source file, or a program that processes it, does."""
    digest = hashlib.sha256()
    digest.update(
        repr(
            (llmplatform.__version__, django.VERSION, servestatic.__version__, static_storage.BROTLI_QUALITY, UNUSED)
        ).encode()
    )
    for finder in get_finders():
        for path, storage in finder.list(UNUSED):
            status = Path(storage.path(path)).stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
