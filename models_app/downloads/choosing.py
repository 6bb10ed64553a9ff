"""Which files of a repository are meant: pure functions over names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from models_app.downloads.fetch import RemoteFile
from models_app.downloads.hubs import Repository
from models_app.downloads.problems import Problem
from models_app.gguf import SPLIT_NAME

# Taken when nothing is said: a good measure of size against quality, then what comes closest.
USUAL = ("q4_k_m", "q4_k_s", "q4_0", "q5_k_m", "q8_0")
MOST_NAMED = 12


def choose(repository: Repository, wanted: str) -> list[RemoteFile]:
    """The file, or all parts of it in order. ``wanted``: a file's name, a quantisation such as ``q4_k_m``, or "".

    Raises Problem when there is none, or several.
    """
    whole = first_parts(repository.files)
    models = [file for file in whole if not _is_projector(file.name)]
    if not whole:
        raise Problem("no_gguf", repository=repository.name)
    found = _named(whole, wanted) or _quantised(models, wanted) if wanted else _usual(models)
    if len(found) == 1:
        return _with_parts(repository, found[0])
    choices = ", ".join(sorted(file.name for file in whole)[:MOST_NAMED])
    if wanted and not found:
        raise Problem("no_such_file", repository=repository.name, wanted=wanted, choices=choices)
    raise Problem("which_file", repository=repository.name, choices=choices)


def first_parts(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Each model once: of those in parts the first."""
    return [file for file in files if (part := SPLIT_NAME.search(file.name)) is None or int(part[1]) == 1]


def size_of(repository: Repository, file: RemoteFile) -> int | None:
    """Bytes of all its parts; None when that is not known."""
    try:
        sizes = [part.size for part in _with_parts(repository, file)]
    except Problem:
        return None
    return sum(size for size in sizes if size) if all(sizes) else None


def _is_projector(name: str) -> bool:
    return "mmproj" in name.lower()


def _named(files: Sequence[RemoteFile], wanted: str) -> list[RemoteFile]:
    exact = [file for file in files if wanted in {file.name, base(file.name)}]
    return exact or [file for file in files if base(file.name).lower() == base(wanted).lower()]


def _quantised(files: Sequence[RemoteFile], wanted: str) -> list[RemoteFile]:
    pattern = re.compile(rf"(?:\A|[-._/]){re.escape(wanted)}(?=[-._/])", re.IGNORECASE)
    found = [file for file in files if pattern.search(file.name)]
    # "q4_k_m" also stands within the "ud-q4_k_m" of the same repository.
    plain = [file for file in found if not re.search(rf"ud-{re.escape(wanted)}", file.name, re.IGNORECASE)]
    return plain or found


def _usual(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    if len(files) == 1:
        return list(files)
    return next((found for name in USUAL if len(found := _quantised(files, name)) == 1), list(files))


def _with_parts(repository: Repository, file: RemoteFile) -> list[RemoteFile]:
    split = SPLIT_NAME.search(file.name)
    if split is None:
        return [file]
    stem, count = file.name[: split.start()], int(split[2])
    by_name = {one.name: one for one in repository.files}
    names = [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    if not 0 < count <= 1000 or any(name not in by_name for name in names):
        raise Problem("part_missing", repository=repository.name, file=base(file.name))
    return [by_name[name] for name in names]


def base(path: str) -> str:
    return path.rpartition("/")[2]
