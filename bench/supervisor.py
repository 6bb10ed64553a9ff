#!/usr/bin/env python3
"""What the supervisor costs, and how soon it does what it is asked.

    python bench/supervisor.py [--replicas 50] [--adopted 20] [--seconds 30]

With the stand-in llama-server of the tests, in a folder that is removed: processor time of the supervisor while that many
replicas are ready and idle; from the wish for one more model to its process; and from the start of a supervisor, whose
predecessor was killed, until it has taken over all of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from models_app.tests.gguf_files import make_gguf  # noqa: E402 - its path is known only now
from tests import standin  # noqa: E402
from tests.ports import free_port  # noqa: E402

WISHES = 5


class Bench:
    def __init__(self, home: Path) -> None:
        self.home = home
        make_gguf(home / "models" / "a.gguf")
        engine = standin.write_executable(home / "llama-server")
        secret = "not-a-secret-" * 4
        lines = {"JWT_SECRET": secret, "SECRET_KEY": secret, "LLAMA_CPP_PATH": engine, "LLAMA_CPP_PORT": free_port()}
        (home / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()), encoding="utf-8")
        os.environ |= {"LLM_HOME": str(home), "DJANGO_SETTINGS_MODULE": "llmplatform.settings"}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, check=True)
        import django

        django.setup()
        self.supervisor: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "out.txt").open("wb") as out:
            argv = [sys.executable, "manage.py", "startmodels"]
            self.supervisor = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def kill(self) -> None:
        """Its engines stay."""
        assert self.supervisor
        self.supervisor.kill()
        self.supervisor.wait()

    def rows(self, **having: Any) -> int:
        from models_app.models import Replica

        return Replica.objects.filter(**having).count()

    def is_started(self, model: str) -> bool:
        return self.rows(model__name=model, pid__gt=0) == 1

    def adopted(self) -> int:
        log = self.home / "logs" / "llm-app.log"
        return log.read_text(encoding="utf-8").count("goes on running as pid") if log.exists() else 0

    def end(self) -> None:
        from models_app import process

        if self.supervisor is not None:
            self.supervisor.terminate()
            self.supervisor.wait(timeout=60)
        for found in process.find_engines():
            found.process.end()


def until(condition: Callable[[], bool], seconds: float = 300.0) -> float:
    """Seconds until it holds."""
    begun = time.perf_counter()
    while not condition():
        if time.perf_counter() - begun > seconds:
            raise SystemExit("it did not come to that")
        time.sleep(0.01)
    return time.perf_counter() - begun


def measure(bench: Bench, replicas: int, adopted: int, seconds: float) -> None:
    from models_app import services
    from models_app.models import ModelConfig

    ModelConfig.objects.create(name="many", file="a.gguf", context_length=512, replicas=adopted)
    bench.start()
    until(lambda: bench.rows(state="ready") == adopted)
    bench.kill()
    bench.start()
    took = until(lambda: bench.adopted() >= adopted)
    show(f"{adopted} replicas taken over, from the supervisor's start", f"{took:.2f} s", "≤ 3 s")

    waits = []
    for number in range(WISHES):
        services.create_model({"name": f"one-{number}", "file": "a.gguf", "context_length": 512})
        waits.append(until(partial(bench.is_started, f"one-{number}")))
    show("from a wish to the process", f"{max(waits):.2f} s at most", "≤ 1 s")

    ModelConfig.objects.filter(name="many").update(replicas=replicas - WISHES)
    until(lambda: bench.rows(state="ready") == replicas)
    assert bench.supervisor
    process = psutil.Process(bench.supervisor.pid)
    time.sleep(5)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    share = (after.user + after.system - before.user - before.system) / seconds
    show(f"processor of the supervisor with {replicas} idle replicas", f"{share:.1%} of a core", "≤ 2 %")
    show("its memory", f"{process.memory_info().rss / 1e6:.0f} MB", "")


def show(what: str, figure: str, wanted: str) -> None:
    print(f"{what:60}{figure:>20}{wanted:>10}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=50)
    parser.add_argument("--adopted", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "models").mkdir()
        bench = Bench(Path(folder))
        try:
            measure(bench, wanted.replicas, wanted.adopted, wanted.seconds)
        finally:
            bench.end()


if __name__ == "__main__":
    main()
