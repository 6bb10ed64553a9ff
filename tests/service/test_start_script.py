"""./start-llm-service.sh: finding Python, installing, handing over. A stand-in plays Python, so that nothing is downloaded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.running_service import PROJECT, wait_for

# Plays python, venv and pip: writes down what it is asked for. A FIFO `slow` in its folder makes pip wait until somebody has
# opened and closed it: in a loop of short programs bash would miss a Ctrl-C that comes just when one of them has ended.
PYTHON = """#!/usr/bin/env bash
notes="{notes}"
case "$*" in
  *"import ensurepip"*) [ ! -e "$notes/no-venv" ] ;;
  -c*) exit 0 ;;
  "-m venv"*) eval target=\\"\\${{$#}}\\"; mkdir -p "$target/bin"; cp "$0" "$target/bin/python" ;;
  "-m pip --version") exit 0 ;;
  "-m pip install"*)
    echo install >>"$notes/installs"
    [ ! -e "$notes/slow" ] || cat "$notes/slow" ;;
  *) echo "$*" >"$notes/arguments"
    echo "handed over: ${{*: -1}} in $PWD" ;;
esac
"""


class Clone:
    """A copy of the script in a folder of its own."""

    def __init__(self, folder: Path, notes: Path) -> None:
        self.folder, self.notes = folder, notes
        folder.mkdir(parents=True)
        notes.mkdir()
        shutil.copy(PROJECT / "start-llm-service.sh", folder)
        (folder / "requirements.txt").write_text("one==1\n")
        self.path = notes / "bin"
        self.path.mkdir()
        self.add_python("python3.12")

    def add_python(self, name: str, text: str = PYTHON) -> None:
        program = self.path / name
        program.write_text(text.format(notes=self.notes))
        program.chmod(0o755)

    def start(self, *options: str, language: str = "C.UTF-8") -> subprocess.Popen[str]:
        environment = {"PATH": f"{self.path}:/usr/bin:/bin", "LANG": language, "HOME": os.environ["HOME"]}
        return subprocess.Popen(
            [str(self.folder / "start-llm-service.sh"), *options],
            cwd=self.notes,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str, language: str = "C.UTF-8") -> tuple[int, str, str]:
        process = self.start(*options, language=language)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def installs(self) -> int:
        notes = self.notes / "installs"
        return len(notes.read_text().splitlines()) if notes.exists() else 0


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path / "a folder with spaces", tmp_path / "notes")


def test_it_installs_once_and_hands_over(clone):
    code, output, _errors = clone.run()
    assert (code, clone.installs()) == (0, 1)
    assert f"handed over: serve in {clone.notes}" in output
    code, output, _errors = clone.run("--background", "--debug")
    assert (code, output, clone.installs()) == (0, f"handed over: --debug in {clone.notes}\n", 1)


def test_changed_requirements_are_installed(clone):
    clone.run()
    (clone.folder / "requirements.txt").write_text("one==2\n")
    clone.run()
    assert clone.installs() == 2


@pytest.mark.parametrize(
    ("option", "command"), [("--status", "status"), ("--stop", "stop"), ("--check-deps", "checkdeps")]
)
def test_options_are_commands(clone, option, command):
    clone.run()
    assert clone.run(option)[:2] == (0, f"handed over: {command} in {clone.notes}\n")


def test_options_of_the_build_are_handed_on(clone):
    notes = clone.notes / "arguments"
    clone.run()
    assert clone.run("--build-llama", "--no-openblas", "--force")[:2] == (0, f"handed over: --force in {clone.notes}\n")
    assert notes.read_text().split()[-3:] == ["buildllama", "--no-openblas", "--force"]


@pytest.mark.parametrize("option", ["--status", "--stop"])
def test_what_is_not_installed_does_not_run(clone, option):
    code, output, _errors = clone.run(option)
    assert (code, clone.installs()) == (3, 0)
    assert "not installed" in output


@pytest.mark.parametrize("option", ["--worker"])
def test_what_comes_later_says_so(clone, option):
    code, _output, errors = clone.run(option)
    assert (code, clone.installs()) == (2, 0)
    assert option in errors


def test_an_unknown_option_shows_the_help(clone):
    code, _output, errors = clone.run("--backgroud")
    assert code == 2
    assert "--backgroud" in errors
    assert "--background" in errors


def test_help_in_both_languages(clone):
    code, english, _errors = clone.run("--help")
    assert code == 0
    code, chinese, _errors = clone.run("--help", language="zh_CN.UTF-8")
    assert code == 0
    assert "Usage" in english
    assert "用法" in chinese
    for option in ("--background", "--stop", "--status", "--check-deps", "--debug", "--worker", "--build-llama"):
        assert option in english
        assert option in chinese


def test_twice_at_once_installs_once(clone):
    slow = clone.notes / "slow"
    os.mkfifo(slow)
    first, second = clone.start(), clone.start()
    wait_for(clone.installs, "the installation")
    with slow.open("w"):
        slow.unlink()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert all("handed over: serve" in output for output in outputs)
    assert clone.installs() == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_installation_is_done_again(clone, number):
    os.mkfifo(clone.notes / "slow")
    process = clone.start()
    wait_for(clone.installs, "the installation")
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    (clone.notes / "slow").unlink()
    code, output, _errors = clone.run()
    assert (code, clone.installs()) == (0, 2)
    assert "handed over: serve" in output


def test_a_name_with_nothing_behind_it_is_passed_over(clone):
    clone.add_python("python3.13", "#!/bin/sh\nexit 127\n")
    assert clone.run()[0] == 0


def test_no_python_is_one_line_with_a_remedy(clone):
    for name in ("python3.13", "python3.12", "python3.11", "python3", "python3.14", "python"):
        clone.add_python(name, "#!/bin/sh\nexit 1\n")
    code, _output, errors = clone.run()
    assert code == 1
    assert "apt install" in errors
    assert len(errors.splitlines()) == 1


def test_a_python_without_venv_names_the_package(clone):
    (clone.notes / "no-venv").touch()
    code, _output, errors = clone.run()
    assert code == 1
    assert "python3-venv" in errors
