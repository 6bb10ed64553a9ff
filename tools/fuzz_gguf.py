"""Fuzzes the GGUF reader and the memory plan, guided by coverage.

    pip install atheris            (Linux and macOS, the Python versions it has wheels for)
    python tools/fuzz_gguf.py [--seconds 600] [--runs 0] [--work FOLDER]

Starts from tests/fuzz/gguf_corpus; what it finds goes to ``--work``, and crashing inputs are named in its output. ``--keep``
afterwards puts what was found into the corpus, which pytest replays: smallest first, up to a size.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS_BYTES = 150_000
CORPUS = ROOT / "tests" / "fuzz" / "gguf_corpus"
sys.path.insert(0, str(ROOT))

import atheris  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmplatform.settings")
with atheris.instrument_imports(include=["models_app.gguf", "models_app.gguf_reader", "models_app.memory"]):
    from models_app import gguf, gguf_reader, memory  # noqa: F401
from tests.fuzz.gguf_target import one_input  # noqa: E402


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="0: without end")
    parser.add_argument("--runs", type=int, default=0, help="inputs; 0: until the time is over")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-gguf")
    parser.add_argument("--keep", action="store_true", help="put what --work has found into the corpus")
    return parser.parse_args()


def keep(found: Path) -> None:
    """libFuzzer names inputs by what is in them, so none is kept twice."""
    left = CORPUS_BYTES - sum(path.stat().st_size for path in CORPUS.iterdir())
    for path in sorted(found.iterdir(), key=lambda one: (one.stat().st_size, one.name)):
        left -= path.stat().st_size
        if left >= 0:
            (CORPUS / path.name).write_bytes(path.read_bytes())


def main() -> None:
    chosen = options()
    found = chosen.work / "found"
    found.mkdir(parents=True, exist_ok=True)
    limits = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024", f"-artifact_prefix={chosen.work}/"]
    if chosen.keep:
        keep(found)
        return
    arguments = [f"-max_total_time={chosen.seconds}", str(found), str(CORPUS), "-print_final_stats=1"]
    arguments += [f"-runs={chosen.runs}"] if chosen.runs else []
    atheris.Setup([sys.argv[0], *limits, *arguments], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    memory_limit = 2 * 1024**3
    resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    main()
