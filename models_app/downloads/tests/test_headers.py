"""What is found out of a model on a hub before it is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from models_app.downloads import headers
from models_app.downloads.fetch import MIB, RemoteFile
from models_app.downloads.http import Source
from models_app.gguf import GgufError, read_facts
from models_app.tests.gguf_files import make_gguf


@pytest.fixture(scope="module")
def files(running_hub) -> Path:
    """A model with a header of 2 MB and 20 MB of weights, whole and in two parts, and what is none."""
    folder: Path = running_hub.folder / "tests" / "headers"
    make_gguf(folder / "wordy.gguf", vocabulary=90_000, layers=5000)
    split = {"split.count": 2, "split.tensors.count": 8}
    make_gguf(folder / "two-00001-of-00002.gguf", layers=4, **{"split.no": 0, **split})
    make_gguf(folder / "two-00002-of-00002.gguf", layers=4, prefix="more", **{"split.no": 1, **split})
    (folder / "short.gguf").write_bytes(make_gguf(folder / "small.gguf").read_bytes()[:-100])
    (folder / "page.gguf").write_bytes(b"<html>" + bytes(2 * MIB))
    return folder


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(headers, "_known", type(headers._known)())


def remote(hub, *names: str, sized: bool = True) -> list[RemoteFile]:
    sizes = [(hub.folder / "tests" / "headers" / name).stat().st_size if sized else None for name in names]
    urls = [f"{hub.url}/tests/headers/resolve/c0ffee/{name}" for name in names]
    return [RemoteFile(Source(url, name), name, size) for url, name, size in zip(urls, names, sizes, strict=True)]


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_few_megabytes_tell_what_the_whole_file_does(hub, files: Path, sized: bool, ranges: bool, settings):
    settings.MODEL_HOSTS = [hub.url]
    hub.fault(ranges=ranges, cut=6 * MIB)  # more than that does not come
    assert headers.facts_of("x", remote(hub, "wordy.gguf", sized=sized)) == read_facts(files / "wordy.gguf")


def test_all_parts_count(hub, files: Path):
    names = ("two-00001-of-00002.gguf", "two-00002-of-00002.gguf")
    found = headers.facts_of("x", remote(hub, *names))
    assert found == read_facts(files / names[0])
    assert (found.parts, found.size) == (2, sum((files / name).stat().st_size for name in names))


def test_it_is_asked_once(hub, files: Path):
    asked = remote(hub, "wordy.gguf")
    first = headers.facts_of("wordy", asked)
    hub.fault(status=500)
    assert headers.known("wordy") == headers.facts_of("wordy", asked) == first
    assert headers.known("other") is None
    assert hub.files_asked() == []


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 404}, {"cut": 100_000}, {"html": True}, {"token": "no"}, {"cut": 2}],
)
def test_what_cannot_be_found_out_is_not_known(hub, files: Path, fault: dict):
    hub.fault(**fault)
    asked = remote(hub, "wordy.gguf", sized=False)
    assert headers.facts_of("x", asked) is None
    assert headers.known("x") is None


def test_nobody_waits_for_long(hub, files: Path, monkeypatch):
    monkeypatch.setattr(headers, "SECONDS", 0.5)
    hub.fault(stall=100_000)
    assert headers.facts_of("x", remote(hub, "wordy.gguf")) is None


def test_what_is_no_model_is_said(hub, files: Path):
    assert headers.facts_of("x", remote(hub, "page.gguf")) is None
    with pytest.raises(GgufError) as cut:
        headers.facts_of("x", remote(hub, "short.gguf"))
    assert cut.value.code == "gguf_cut_short"


def test_nothing_is_left_on_the_disk(hub, files: Path, monkeypatch, tmp_path):
    folder = tmp_path / "for-headers"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    headers.facts_of("x", remote(hub, "wordy.gguf"))
    hub.fault(cut=100_000)
    headers.facts_of("y", remote(hub, "wordy.gguf"))
    assert list(folder.iterdir()) == []
