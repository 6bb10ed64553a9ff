"""What is not whole yet lies in ``models/.downloads/ID/`` as ``NAME.partial``; only what was checked gets its own name among the
models, parts of one model all together and the first of them last. Nothing is ever overwritten there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from django.conf import settings

from models_app import gguf, inspection
from models_app.downloads.fetch import CHUNK, RemoteFile, as_problem
from models_app.downloads.problems import Problem

ABANDONED = 24 * 3600.0  # seconds after which an upload that nobody goes on with is deleted


def root() -> Path:
    return Path(settings.MODELS_PATH) / ".downloads"


def folder_of(pk: int) -> Path:
    return root() / str(pk)


def upload_folder(upload: str = "") -> Path:
    return root() / "uploads" / upload if upload else root() / "uploads"


def partial_of(pk: int, name: str) -> Path:
    return folder_of(pk) / f"{name}.partial"


def place_of(name: str) -> Path:
    return Path(settings.MODELS_PATH) / name


def open_folder(pk: int) -> None:
    """What an earlier try had ready to be named is partial again. Raises Problem."""
    folder = folder_of(pk)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.gguf"):
            os.replace(path, partial_of(pk, path.name))
    except OSError as error:
        raise Problem("folder", error=error.strerror or str(error)) from error


def remove(pk: int) -> None:
    shutil.rmtree(folder_of(pk), ignore_errors=True)


def is_there(file: RemoteFile, stop: threading.Event) -> bool:
    """Whether this very file lies among the models already. Raises Problem when it is another one."""
    path = place_of(file.name)
    if not path.exists():
        return False
    if file.sha256 and file.size in {None, path.stat().st_size} and sha256_of(path, stop) == file.sha256:
        return True
    raise Problem("file_exists", file=file.name)


def sha256_of(path: Path, stop: threading.Event) -> str:
    """Of what was read when ``stop`` is set, which nobody waits for."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while not stop.is_set() and (chunk := stream.read(CHUNK)):
            digest.update(chunk)
    return digest.hexdigest()


def take_upload(pk: int, upload: str, name: str) -> Path:
    """What was uploaded, as a partial file. Raises Problem."""
    partial = partial_of(pk, name)
    with contextlib.suppress(FileNotFoundError):  # taken at an earlier try
        os.replace(upload_folder(upload) / "data", partial)
        shutil.rmtree(upload_folder(upload), ignore_errors=True)
    if not partial.exists():
        raise Problem("upload_gone")
    return partial


def put_in_place(pk: int, names: Sequence[str]) -> None:
    """Checks the whole model and gives it its name. Raises Problem; what is no model is deleted."""
    folder = folder_of(pk)
    try:
        for name in names:
            if partial_of(pk, name).exists():
                os.replace(partial_of(pk, name), folder / name)
            elif not (folder / name).exists():  # an earlier try got further
                os.link(place_of(name), folder / name)
        _check(folder / names[0])
        for name in reversed(names):
            _name(folder / name, place_of(name))
    except OSError as error:
        raise as_problem(error, folder) from error
    remove(pk)
    _flush(place_of(names[0]).parent)


def _check(path: Path) -> None:
    try:
        inspection.facts_of(path)
    except gguf.GgufError as error:
        shutil.rmtree(path.parent, ignore_errors=True)
        why = {"code": error.code, "params": {"file": path.name, **error.params}}
        raise Problem("rejected", file=path.name, gguf=why) from None


def _name(source: Path, target: Path) -> None:
    """A link cannot take the place of a file that came meanwhile, as a renamed file would."""
    if target.exists() and target.samefile(source):
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise Problem("file_exists", file=target.name) from None
    except OSError:  # a file system without links
        if target.exists():
            raise Problem("file_exists", file=target.name) from None
        os.rename(source, target)


def _flush(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system opens folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def clean_up(keep: Iterable[int]) -> None:
    """Removes what downloads left that nobody knows any more, and uploads that nobody goes on with."""
    kept = {str(pk) for pk in keep}
    with contextlib.suppress(OSError):
        for folder in root().iterdir():
            if folder.name.isdecimal() and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        for folder in upload_folder().iterdir():
            if time.time() - max(path.stat().st_mtime for path in (folder, *folder.iterdir())) > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
