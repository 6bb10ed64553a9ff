"""``GET /api/v1/model-files`` and ``inspectmodel``: the files there are, sound or not, and what fits."""

from __future__ import annotations

import json
import os
from io import StringIO

import pytest
from django.core.management import call_command

from models_app import machine, memory
from models_app.models import ModelConfig
from models_app.tests.gguf_files import make_gguf
from tests.api_callers import client_of

URL = "/api/v1/model-files"


@pytest.fixture
def folder(home):
    return home / "models"


def listed() -> dict[str, dict]:
    return {file["file"]: file for file in client_of("operator").get(URL).json()["files"]}


@pytest.mark.django_db
def test_files_with_facts_or_the_reason(folder):
    make_gguf(folder / "good.gguf", context=4096)
    make_gguf(folder / "deep" / "er" / "x.gguf")
    (folder / "bad.gguf").write_bytes(b"<html>404</html>")
    (folder / "notes.txt").write_text("no model")
    files = listed()
    assert set(files) == {"good.gguf", "deep/er/x.gguf", "bad.gguf"}
    good, bad = files["good.gguf"], files["bad.gguf"]
    assert (good["error"], good["gguf"]["kind"], good["size"]) == (None, "chat", (folder / "good.gguf").stat().st_size)
    assert {fit["contextLength"] for fit in good["fits"]} == {2048, 4096}
    assert (bad["error"]["code"], bad["gguf"], bad["fits"]) == ("gguf_not_one", {}, [])
    assert "bad.gguf" in bad["error"]["message"]


@pytest.mark.django_db
def test_what_fits_depends_on_the_memory_there_is(folder, monkeypatch):
    make_gguf(folder / "a.gguf", context=1 << 20)
    monkeypatch.setattr(machine, "available_memory", lambda: 400 * memory.MIB)
    answer = client_of("operator").get(URL).json()
    fits = answer["files"][0]["fits"]
    assert answer["usableMemory"] == 144 * memory.MIB
    assert all(fit["fits"] == (fit["memory"] <= answer["usableMemory"]) for fit in fits)
    assert {fit["fits"] for fit in fits} == {True, False}


@pytest.mark.django_db
def test_parts_are_one_file_and_links_that_lead_out_are_not_followed(folder, tmp_path_factory):
    make_gguf(folder / "a-00001-of-00002.gguf", **{"split.count": 2})
    make_gguf(folder / "a-00002-of-00002.gguf", **{"split.count": 2, "split.no": 1}, prefix="more")
    outside = make_gguf(tmp_path_factory.mktemp("outside") / "secret.gguf")
    os.symlink(outside, folder / "link.gguf")
    files = listed()
    assert set(files) == {"a-00001-of-00002.gguf", "link.gguf"}
    assert files["a-00001-of-00002.gguf"]["gguf"]["parts"] == 2
    assert files["link.gguf"]["error"]["code"] == "path_unsafe"


@pytest.mark.django_db
def test_a_model_may_be_called_files(folder):
    ModelConfig.objects.create(name="files", file="a.gguf")
    assert client_of("operator").get("/api/v1/models/files").json()["modelName"] == "files"


# -- the command: no database ------------------------------------------------------------------------------------------
def inspect(*arguments) -> tuple[int, str, str]:
    out, err = StringIO(), StringIO()
    try:
        call_command("inspectmodel", *arguments, stdout=out, stderr=err)
    except SystemExit as end:
        return int(end.code), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def test_the_command_shows_a_file(folder, monkeypatch):
    monkeypatch.setenv("LANG", "C.UTF-8")
    path = make_gguf(folder / "a.gguf")
    code, out, _err = inspect(str(path))
    assert code == 0
    assert "Test model" in out
    assert "fits now" in out
    assert inspect("a.gguf")[1] == out  # by its name in the models folder
    told = json.loads(inspect("--json", "a.gguf")[1])
    assert (told["file"], told["gguf"]["architecture"], told["error"]) == ("a.gguf", "llama", None)


def test_the_command_says_why_not(folder, monkeypatch):
    monkeypatch.setenv("LANG", "C.UTF-8")
    (folder / "a.gguf").write_bytes(b"GGUF")
    code, out, err = inspect("a.gguf")
    assert (code, out) == (1, "")
    assert "cut short" in err
    code, out, _err = inspect("--json", "a.gguf")
    assert (code, json.loads(out)["error"]["code"]) == (1, "gguf_cut_short")
    assert "cannot be read" in inspect("nowhere.gguf")[2]


def test_the_command_speaks_chinese(folder, monkeypatch):
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    make_gguf(folder / "a.gguf")
    assert "架构" in inspect("a.gguf")[1]
    (folder / "b.gguf").write_bytes(b"x")
    assert "不是" in inspect("b.gguf")[2]
