"""Tuned settings against llama-server's defaults: a tuning for many people, then both again in alternating rounds.

    python bench/tuning.py MODEL.gguf [--clients N] [--seconds N] [--rounds N] [--requests N]

Prints the measured table, and the ratio of answers' tokens per second at that many clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--requests", type=int, default=3, help="of each client in a round")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # engines are ended then, too
    with tempfile.TemporaryDirectory(prefix="bench-tuning-") as home:
        for name in ("JWT_SECRET", "SECRET_KEY", "CLUSTER_TOKEN"):
            os.environ[name] = secrets.token_hex(16)
        os.environ.update(LLM_HOME=home, DJANGO_SETTINGS_MODULE="llmplatform.settings")
        os.environ["MODELS_PATH"] = str(options.model.resolve().parent)
        found = tune(options)
        import django

        django.setup()
        asyncio.run(confirm(options, found, Path(home) / "engines.log"))


def tune(options: argparse.Namespace) -> dict[str, Any]:
    manage("migrate", "-v0")
    entry = (
        f"from models_app.models import ModelConfig as M; M.objects.create(name='bench', file={options.model.name!r})"
    )
    manage("shell", "-c", entry)
    asked = ("--seconds", str(options.seconds), "--clients", str(options.clients), "--json")
    found: dict[str, Any] = json.loads(manage("tunemodel", "bench", *asked))
    for row in found["rows"]:
        text = row["problem"] or {name: value for name, value in row["settings"].items() if value not in (None, "off")}
        print(f"{row['tokensPerSecond']:7.1f} tokens/s  {row['memory'] / 2**20:6.0f} MiB  {row['runs']} x  {text}")
    print(f"chosen {found['chosen']}, gain {found['gain']}, others took {found['busy']:.0%} of the processor")
    return found


def manage(*arguments: str) -> str:
    argv = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def confirm(options: argparse.Namespace, found: dict[str, Any], log: Path) -> None:
    from llmplatform.service.llama_build import trying
    from models_app.launchers.local import LocalLauncher
    from models_app.tuning.candidates import Setting
    from models_app.tuning.trial import Load, Trials

    wanted = replace(trying.wanted_for(options.model.resolve()), temperature=0.7, prompt_cache=256)
    trials, load = Trials(LocalLauncher(), -1, log), Load(options.clients, options.requests)
    both = {"defaults": Setting(), "tuned": Setting(**found["chosen"])}
    seen: dict[str, list[float]] = {name: [] for name in both}
    for turn in range(options.rounds):
        for name in list(both) if turn % 2 == 0 else list(both)[::-1]:
            figures = await trials.measure(both[name].applied_to(wanted), both[name].replicas, load)
            seen[name].append(figures.tokens_per_second)
    for name, speeds in seen.items():
        print(f"{name:<9} median {statistics.median(speeds):6.1f} tokens/s, {min(speeds):.1f} to {max(speeds):.1f}")
    print(
        f"ratio {statistics.median(seen['tuned']) / statistics.median(seen['defaults']):.2f} at {options.clients} clients"
    )


if __name__ == "__main__":
    main()
