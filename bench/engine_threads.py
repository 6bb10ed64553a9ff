"""What it costs that the engine's threads spin while they wait for each other: tokens per second with OpenMP's own setting, with
the short spin that the supervisor sets, and with none, on a quiet machine and beside programs that want the cores too.

    python bench/engine_threads.py MODEL.gguf [--busy N] [--rounds N]

``--busy``: how many busy programs run beside in the second part (default: as many as cores). All engines run all the time and
are asked in turn, so that a machine that changes its speed does so for both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
POLICIES: dict[str, dict[str, str]] = {
    "default": {},
    "short": {"GOMP_SPINCOUNT": "1000"},
    "none": {"OMP_WAIT_POLICY": "PASSIVE"},
}
BURN = "while True: pass"


@contextlib.contextmanager
def engine(model: str, policy: str, key: str) -> Iterator[str]:
    """A running engine; yields its address."""
    port, threads = free_port(), str(os.cpu_count() or 1)
    argv = [sys.executable, "-m", "models_app.engine_main", "--model", model, "--alias", "bench", "--port", str(port)]
    argv += [
        "--ctx-size",
        "2048",
        "--parallel",
        "1",
        "--threads",
        threads,
        "--threads-batch",
        threads,
        "--cache-ram",
        "0",
    ]
    own = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = {**own, "LLAMA_API_KEY": key, **POLICIES[policy]}
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_healthy(address, process)
        yield address
    finally:
        process.kill()
        process.wait()


def wait_until_healthy(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                return
        if process.poll() is not None:
            raise SystemExit("the engine did not start")
        time.sleep(0.1)
    raise SystemExit("the engine did not become ready")


def ask(address: str, key: str) -> tuple[float, float]:
    """Prompt and generation speed in tokens per second, as the engine reports them."""
    body = {"prompt": f"{secrets.token_hex(4)} " + "the quick brown fox " * 30, "n_predict": 24, "ignore_eos": True}
    answer = httpx.post(
        f"{address}/completion", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=600
    ).raise_for_status()
    timings = answer.json()["timings"]
    return timings["prompt_per_second"], timings["predicted_per_second"]


def measure(addresses: dict[str, str], key: str, rounds: int, title: str) -> None:
    seen: dict[str, list[tuple[float, float]]] = {policy: [] for policy in addresses}
    for _ in range(rounds):
        for policy, address in addresses.items():
            seen[policy].append(ask(address, key))
    median = {
        policy: tuple(statistics.median(column) for column in zip(*rows, strict=True)) for policy, rows in seen.items()
    }
    base = median["default"]
    for policy, (prompt, generated) in median.items():
        ratios = f"{prompt / base[0]:.2f} and {generated / base[1]:.2f} of the default"
        print(f"{title:<22} {policy:<8} prompt {prompt:7.1f}   answer {generated:6.1f} tokens/s   {ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model")
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    key = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        addresses = {policy: stack.enter_context(engine(options.model, policy, key)) for policy in POLICIES}
        measure(addresses, key, options.rounds, "quiet")
        burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(options.busy)]
        try:
            measure(addresses, key, options.rounds, f"beside {options.busy} busy programs")
        finally:
            for burner in burners:
                burner.kill()


if __name__ == "__main__":
    main()
