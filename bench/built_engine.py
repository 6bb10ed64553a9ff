"""What was built by ``--build-llama`` against the built-in engine: tokens per second of both, same model, asked in turns.

    python bench/built_engine.py PROGRAM MODEL.gguf [--rounds N] [--times N]

``--times``: how often both are started anew. The same code as the build's own measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # engines are ended then, too
    with tempfile.TemporaryDirectory(prefix="bench-built-") as home:
        for name in ("JWT_SECRET", "SECRET_KEY", "CLUSTER_TOKEN"):
            os.environ[name] = secrets.token_hex(16)
        os.environ.update(LLM_HOME=home, MODELS_PATH=str(options.model.resolve().parent))
        os.environ["DJANGO_SETTINGS_MODULE"] = "llmplatform.settings"
        import django

        django.setup()
        measure(options, Path(home) / "engines.log")


def measure(options: argparse.Namespace, log: Path) -> None:
    from llmplatform.service.llama_build import trying

    for _ in range(options.times):
        model = options.model.resolve()
        found = asyncio.run(trying.compare(options.program.resolve(), model, log, lambda *_: None, options.rounds))
        if found.embedded is None or found.ratio is None:
            raise SystemExit("the built-in engine does not run here")
        print(
            f"built-in: prompt {found.embedded.prompt:6.1f}, answer {found.embedded.answer:6.1f}"
            f"   built: prompt {found.built.prompt:6.1f}, answer {found.built.answer:6.1f}"
            f"   ratios {found.built.prompt / found.embedded.prompt:.2f}, "
            f"{found.built.answer / found.embedded.answer:.2f}, request {found.ratio:.2f}"
        )


if __name__ == "__main__":
    main()
