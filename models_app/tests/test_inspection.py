"""Files are looked into by a child process with bounds, once for each state of the file."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from models_app import gguf_child, inspection
from models_app.gguf import GgufError, read_facts
from models_app.tests.gguf_files import make_gguf

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _nothing_known():
    inspection.forget()


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """Another program in the place of the reader."""

    def put(source: str) -> None:
        path = tmp_path / "reader.py"
        path.write_text(source)
        monkeypatch.setattr(gguf_child, "__file__", str(path))

    return put


def rejected(path) -> tuple[str, dict]:
    with pytest.raises(GgufError) as caught:
        inspection.facts_of(path)
    return caught.value.code, caught.value.params


def test_the_child_says_what_the_reader_says(tmp_path):
    path = make_gguf(tmp_path / "a.gguf")
    assert inspection.facts_of(path) == read_facts(path)
    path.write_bytes(path.read_bytes()[:-8])
    code, params = rejected(path)
    assert (code, params["size"]) == ("gguf_cut_short", path.stat().st_size)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path, reader):
    path = make_gguf(tmp_path / "a.gguf")
    facts = inspection.facts_of(path)
    reader("import sys; sys.exit(3)")
    assert inspection.facts_of(path) == facts
    os.utime(path, (1, 1))
    assert rejected(path) == ("gguf_check_ended", {"exit": 3})


def test_a_part_that_goes_is_noticed(tmp_path):
    first = make_gguf(tmp_path / "a-00001-of-00002.gguf", **{"split.count": 2})
    second = make_gguf(tmp_path / "a-00002-of-00002.gguf", **{"split.count": 2, "split.no": 1}, prefix="more")
    assert inspection.facts_of(first).parts == 2
    second.unlink()
    assert rejected(first) == ("gguf_part_missing", {"part": second.name})


@pytest.mark.skipif(os.name == "nt", reason="there the clock is the only bound")
def test_memory_is_bounded_by_the_system(tmp_path, reader):
    path = make_gguf(tmp_path / "a.gguf")
    source = "import sys; sys.path.insert(0, {!r})\nfrom models_app import gguf_child\ngguf_child.limit()\n"
    reader(source.format(str(inspection.Path(inspection.__file__).parents[1])) + "b = bytearray(300_000_000)")
    assert rejected(path) == ("gguf_check_ended", {"exit": 1})


def test_time_is_bounded_by_the_clock(tmp_path, reader, monkeypatch):
    path = make_gguf(tmp_path / "a.gguf")
    monkeypatch.setattr(inspection, "WALL_SECONDS", 0.5)
    reader("import time; time.sleep(600)")
    begin = time.monotonic()
    assert rejected(path)[0] == "gguf_check_time"
    assert time.monotonic() - begin < 20


def test_what_may_be_the_machines_fault_is_tried_again_later(tmp_path, reader, monkeypatch):
    path = make_gguf(tmp_path / "a.gguf")
    reader("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert rejected(path) == ("gguf_check_ended", {"exit": -9})
    monkeypatch.setattr(inspection, "AGAIN", 0)
    reader("import sys; sys.exit(4)")
    assert rejected(path) == ("gguf_check_ended", {"exit": 4})


def test_our_secrets_stay_here(tmp_path, reader, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "not for files")
    reader("import os, json; print(json.dumps({'code': 'x', 'params': dict(os.environ)}))")
    assert "SECRET_KEY" not in rejected(make_gguf(tmp_path / "a.gguf"))[1]


def test_no_file_and_no_regular_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        inspection.facts_of(tmp_path / "no.gguf")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.gguf")
        with pytest.raises(OSError, match="regular"):
            inspection.facts_of(tmp_path / "pipe.gguf")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_150_000_words_take_little_time_and_memory_in_the_child(tmp_path):
    """At most 0.2 s of the processor's time and 40 MB more than for a small file."""
    path = make_gguf(tmp_path / "a.gguf", vocabulary=150_000)
    small = make_gguf(tmp_path / "b.gguf")
    (time_small, memory_small), (time_large, memory_large) = child_costs(small), child_costs(path)
    assert time_large - time_small < 0.2
    assert memory_large - memory_small < 40 * MIB


def child_costs(path) -> tuple[float, int]:
    """Seconds of processor time and bytes at most."""
    source = "import resource, runpy, sys; sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    source += "used = resource.getrusage(resource.RUSAGE_SELF)\nprint(used.ru_utime + used.ru_stime)\n"
    source += "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    argv = [sys.executable, "-I", "-S", "-c", source, gguf_child.__file__, str(path)]
    seconds, kib = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[-2:]
    return float(seconds), int(kib) * 1024
