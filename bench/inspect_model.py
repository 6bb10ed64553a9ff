"""What it costs to look into a GGUF file: our reader in a child process (as the service does it), in process, and the ``gguf``
package, on a model and on a made file with a vocabulary of 150,000 words.

    python bench/inspect_model.py MODEL.gguf [--rounds N]

Each measurement is a process of its own. Time is that of the look (for the child, from its start to its answer), by the clock
and by the processor. Memory is the most the process held, less what it held right before (for the child: all of it).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
MIB = 1024 * 1024

PEAK = """
import json, re, sys, time
sys.path.insert(0, {root!r})
def held(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
{imports}
before, begin, busy = held("VmRSS"), time.perf_counter(), time.process_time()
{look}
print(json.dumps([time.perf_counter() - begin, time.process_time() - busy, held("VmHWM") - before]))
"""
WAYS = {
    "in process": ("from pathlib import Path; from models_app.gguf import read_facts", "read_facts(Path({file!r}))"),
    "gguf package": ("from gguf import GGUFReader", "GGUFReader({file!r})"),
}
CHILD = """
import json, resource, subprocess, sys, time
begin = time.perf_counter()
subprocess.run([sys.executable, "-I", "-S", {child!r}, {file!r}], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""


def once(way: str, file: Path) -> list[float]:
    """Seconds by the clock, seconds of the processor, bytes."""
    if way == "in a child":
        source = CHILD.format(child=str(ROOT / "models_app" / "gguf_child.py"), file=str(file))
    else:
        imports, look = WAYS[way]
        source = PEAK.format(root=str(ROOT), imports=imports, look=look.format(file=str(file)))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    values: list[float] = json.loads(done.stdout.splitlines()[-1])
    return values


def large_vocabulary(folder: Path) -> Path:
    """150,000 words and as many pairs, as today's tokenizers have them."""
    from gguf import GGUFWriter

    path, words = folder / "vocabulary.gguf", 150_000
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"word{number}" for number in range(words)])
    writer.add_token_types([1] * words)
    writer.add_token_merges([f"wo rd{number}" for number in range(words)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for file in (options.model, large_vocabulary(Path(folder))):
            busy = {}
            for way in ("in a child", *WAYS):
                measured = [once(way, file) for _round in range(options.rounds)]
                clock, busy[way] = (statistics.median(one[number] for one in measured) for number in (0, 1))
                most = max(one[2] for one in measured) / MIB
                ratio = f", {busy[way] / busy['in process']:.0f} × in process" if way == "gguf package" else ""
                print(
                    f"{file.name}: {way}: {clock:.3f} s, processor {busy[way]:.3f} s, {most:.1f} MiB{ratio}", flush=True
                )


if __name__ == "__main__":
    main()
