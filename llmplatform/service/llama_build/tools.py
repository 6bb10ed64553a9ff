"""What a build needs besides the source: a C++ compiler, which only the administrator can install, cmake and ninja, which come
from the Python package index when the system has none, and OpenBLAS when it is there.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.utils.translation import gettext as _

from llmplatform.lib import pip_runs
from llmplatform.service.llama_build.problems import BuildFailed

CMAKE_VERSION = (3, 18)
# Pinned versions of what is fetched when it is missing; fit for llama.cpp's 3.14 to 3.28.
FETCHED = {"cmake": "3.31.10", "ninja": "1.13.0"}
TRY_SECONDS = 60
CPP_PROBE = "#include <thread>\n#include <filesystem>\nint main() { return std::filesystem::path().empty() ? 0 : 1; }\n"
BLAS_PROBE = 'extern "C" void openblas_set_num_threads(int);\nint main() { openblas_set_num_threads(1); return 0; }\n'
HEADER_PROBE = "#include <cblas.h>\nint main() { return 0; }\n"


@dataclass(frozen=True)
class Tools:
    compiler: str
    cmake: str
    ninja: str


def find(folder: Path, told: Callable[[str], None]) -> Tools:
    """Raises BuildFailed. What is fetched goes into ``folder``, a place of its own that nothing else uses."""
    compiler = _compiler()
    return Tools(compiler, _tool("cmake", folder, told), _tool("ninja", folder, told))


def _compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None or not compiles(found, CPP_PROBE):
        raise BuildFailed(_("there is no C++17 compiler. Install one: %(command)s") % {"command": install_command()})
    return found


def install_command() -> str:
    """How to install a compiler on this system."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    if sys.platform == "win32":
        return "winget install Microsoft.VisualStudio.2022.BuildTools"
    commands = {
        "apt-get": "sudo apt install build-essential",
        "dnf": "sudo dnf install gcc-c++",
        "yum": "sudo yum install gcc-c++",
        "zypper": "sudo zypper install gcc-c++",
        "apk": "sudo apk add build-base linux-headers",
        "pacman": "sudo pacman -S base-devel",
    }
    found = next((line for name, line in commands.items() if shutil.which(name)), None)
    return found or commands["apt-get"]


def compiles(compiler: str, text: str, *libraries: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="llm-probe-") as name:
        (Path(name) / "probe.cpp").write_text(text)
        argv = [compiler, "-std=c++17", "probe.cpp", "-o", "probe", *libraries]
        try:
            done = subprocess.run(
                argv, cwd=name, capture_output=True, timeout=TRY_SECONDS, stdin=subprocess.DEVNULL, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


def has_openblas(compiler: str) -> bool:
    """Library and header, where CMake looks for them."""
    triplet = f"{platform.machine()}-linux-gnu"
    folders = [
        "/usr/include",
        *(f"/usr/include/{name}" for name in ("openblas", triplet, f"{triplet}/openblas-pthread")),
    ]
    folders += ["/opt/homebrew/opt/openblas/include", "/usr/local/opt/openblas/include"]
    return compiles(compiler, BLAS_PROBE, "-lopenblas") and any(
        compiles(compiler, HEADER_PROBE, f"-I{folder}") for folder in folders
    )


def _tool(name: str, folder: Path, told: Callable[[str], None]) -> str:
    if (found := _usable(name, folder)) is not None:
        return found
    told(_("%(name)s is not installed: fetching it for this build.") % {"name": name})
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["install", *pip_runs.PATIENCE, "--only-binary=:all:", "--target", str(folder / name)]
    output = pip_runs.run([*arguments, f"{name}=={FETCHED[name]}"], folder, lambda _size: None)
    found = _usable(name, folder)
    if found is None:
        message = _("%(name)s could not be fetched. Install it with the system's package manager.") % {"name": name}
        raise BuildFailed(message, output)
    return found


def _usable(name: str, folder: Path) -> str | None:
    least = CMAKE_VERSION if name == "cmake" else (1,)
    # Where the system has it, and where the wheels of the index have theirs.
    places = [
        shutil.which(name),
        *(shutil.which(folder / name / path / name) for path in ("data/bin", "cmake/data/bin", "bin")),
    ]
    return next((place for place in places if place and _version(place) >= least), None)


def _version(program: str) -> tuple[int, ...]:
    """(0,) when it does not run."""
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=TRY_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    number = next((word for word in done.stdout.split() if word[:1].isdigit()), "0")
    return tuple(int(part) for part in number.split(".")[:3] if part.isdigit()) or (0,)
