"""From an entry's ``modelFile`` and ``modelPath`` to a file, never outside the places where models may lie."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from django.conf import settings


class UnsafePath(ValueError):
    """The entry names a file outside of the models folder and the service's own folder."""


def check_names(file: str, path: str) -> None:
    """Raises UnsafePath for names that are refused whatever lies on the disk: absolute, or climbing with ``..``."""
    for name in (file, path):
        climbs = ".." in PurePosixPath(name).parts or ".." in PureWindowsPath(name).parts
        if climbs or "\0" in name or PureWindowsPath(name).drive:
            raise UnsafePath(name)
    if not file or file.startswith(("/", "\\")):
        raise UnsafePath(file)


def folder_of(path: str) -> Path:
    """``models/`` is the folder MODELS_PATH points at, as in the guide; others are seen from the service's folder."""
    models: Path = settings.MODELS_PATH
    home: Path = settings.HOME_DIR
    return models if PurePosixPath(path).as_posix() in {".", "models"} else home / path


def locate(file: str, path: str) -> Path:
    """The file with symbolic links followed; it need not exist. Raises UnsafePath when it lies outside."""
    check_names(file, path)
    found = (folder_of(path) / file).resolve()
    roots = (settings.MODELS_PATH.resolve(), settings.HOME_DIR.resolve())
    if not any(found.is_relative_to(root) for root in roots):
        raise UnsafePath(file)
    return found


def identity(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is replaced, grows, appears or goes."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
