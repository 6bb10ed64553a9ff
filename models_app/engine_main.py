"""The embedded engine: llama.cpp's own HTTP server, as the ``xllamacpp`` wheel contains it, behind llama-server's own flags.

``python -m models_app.engine_main --model FILE --port N …``. It takes exactly the flags that ``models_app.command_line`` writes,
so that the same command line goes to a llama-server built elsewhere. It imports nothing of Django: one process of this
kind runs per replica. The API key comes by LLAMA_API_KEY, since everybody on the machine can read command lines.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import Any


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="engine", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    for name in ("--port", "--ctx-size", "--parallel", "--threads", "--threads-batch", "--cache-ram"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--n-gpu-layers", "--n-predict", "--batch-size", "--ubatch-size"):
        parser.add_argument(name, type=int)
    for name in ("--temp", "--top-p", "--repeat-penalty"):
        parser.add_argument(name, type=float)
    parser.add_argument("--pooling", choices=("none", "mean", "cls", "last", "rank"))
    parser.add_argument("--fit", choices=("on", "off"), default="off")
    for name in ("--embeddings", "--metrics", "--jinja", "--offline"):
        parser.add_argument(name, action="store_true")
    # Off is what this engine does without being asked; the flags are there because llama-server's defaults differ by version.
    for name in ("--no-ui", "--no-slots", "--no-context-shift"):
        parser.add_argument(name, action="store_true")
    return parser.parse_args(argv)


def parameters(options: argparse.Namespace, key: str) -> Any:
    import xllamacpp  # here, so that the command line can be tested without loading 60 MB of engine

    values = xllamacpp.CommonParams()
    values.model.path, values.model_alias = options.model, {options.alias}
    values.hostnames, values.port, values.api_keys = [options.host], options.port, [key]
    values.n_ctx, values.n_parallel, values.n_predict = options.ctx_size, options.parallel, options.n_predict or -1
    values.cpuparams.n_threads, values.cpuparams_batch.n_threads = options.threads, options.threads_batch
    values.n_gpu_layers, values.cache_ram_mib = options.n_gpu_layers or 0, options.cache_ram
    values.ui = values.endpoint_slots = values.endpoint_props = values.ctx_shift = values.fit_params = False
    values.endpoint_metrics, values.offline, values.use_jinja = options.metrics, True, True
    values.n_batch, values.n_ubatch = options.batch_size or values.n_batch, options.ubatch_size or values.n_ubatch
    _sampling(values.sampling, options)
    if options.embeddings:
        values.embedding = True
        if options.pooling:
            values.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{options.pooling.upper()}")
    return values


def _sampling(sampling: Any, options: argparse.Namespace) -> None:
    for attribute, value in (
        ("temp", options.temp),
        ("top_p", options.top_p),
        ("penalty_repeat", options.repeat_penalty),
    ):
        if value is not None:
            setattr(sampling, attribute, value)


def main(argv: list[str]) -> int:
    options = parse(argv)
    key = os.environ.pop("LLAMA_API_KEY", "")
    if not key:
        sys.stderr.write("LLAMA_API_KEY is not set\n")
        return 2
    # The system's own action: the process ends at once, also while the engine's threads compute.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import xllamacpp

    try:
        server = xllamacpp.Server(parameters(options, key))
    except RuntimeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stderr.write(f"listening on {server.listening_address}\n")
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
