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
import time
from pathlib import Path
from typing import Any

# Names on the command line -> those of ggml and llama.cpp
CACHE_TYPES = {"f16": "GGML_TYPE_F16", "q8_0": "GGML_TYPE_Q8_0", "q4_0": "GGML_TYPE_Q4_0"}
NUMA = {"distribute": 1, "isolate": 2}
UNCLAIMED_SECONDS = 120.0
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="engine", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    for name in ("--port", "--ctx-size", "--parallel", "--threads", "--threads-batch", "--cache-ram"):
        parser.add_argument(name, type=int, required=True)
    for name in ("--n-gpu-layers", "--n-predict", "--batch-size", "--ubatch-size"):
        parser.add_argument(name, type=int)
    for name in ("--temp", "--top-p", "--repeat-penalty", "--slot-prompt-similarity"):
        parser.add_argument(name, type=float)
    parser.add_argument("--pooling", choices=("none", "mean", "cls", "last", "rank"))
    parser.add_argument("--fit", choices=("on", "off"), default="off")
    for name in ("--cache-type-k", "--cache-type-v"):
        parser.add_argument(name, choices=tuple(CACHE_TYPES), default="f16")
    parser.add_argument("--flash-attn", choices=tuple(FLASH_ATTENTION), default="auto")
    parser.add_argument("--numa", choices=tuple(NUMA))
    parser.add_argument("--spec-type", choices=("ngram-simple", "draft-simple"))
    for name in ("--model-draft", "--mmproj", "--chat-template-file"):
        parser.add_argument(name, default="")
    for name in ("--lora", "--lora-scaled"):
        parser.add_argument(name, action="append", default=[])
    for name in ("--embeddings", "--reranking", "--kv-unified", "--metrics", "--jinja", "--offline"):
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
    if options.slot_prompt_similarity is not None:
        values.slot_prompt_similarity = options.slot_prompt_similarity
    values.endpoint_metrics, values.offline, values.use_jinja = options.metrics, True, True
    values.n_batch, values.n_ubatch = options.batch_size or values.n_batch, options.ubatch_size or values.n_ubatch
    _sampling(values.sampling, options)
    _speed(values, options)
    _files(values, options)
    if options.embeddings:
        values.embedding, values.kv_unified = True, options.kv_unified
        if options.pooling:
            values.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{options.pooling.upper()}")
    return values


def _speed(values: Any, options: argparse.Namespace) -> None:
    import xllamacpp

    values.cache_type_k = getattr(xllamacpp.ggml_type, CACHE_TYPES[options.cache_type_k])
    values.cache_type_v = getattr(xllamacpp.ggml_type, CACHE_TYPES[options.cache_type_v])
    values.flash_attn_type = xllamacpp.llama_flash_attn_type(FLASH_ATTENTION[options.flash_attn])
    if options.numa:
        values.numa = xllamacpp.ggml_numa_strategy(NUMA[options.numa])
    kinds = xllamacpp.common_speculative_type
    if options.spec_type == "ngram-simple":
        values.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
    if options.model_draft:
        values.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        values.speculative.draft.mparams.path = options.model_draft


def _files(values: Any, options: argparse.Namespace) -> None:
    import xllamacpp

    if options.mmproj:
        values.mmproj.path = options.mmproj
    adapters = [(path, "1") for path in options.lora] + [part.rsplit(":", 1) for part in options.lora_scaled]
    values.lora_adapters = [_adapter(xllamacpp.CommonAdapterLoraInfo(), path, scale) for path, scale in adapters]
    if options.chat_template_file:
        values.chat_template = Path(options.chat_template_file).read_text(encoding="utf-8")


def _adapter(adapter: Any, path: str, scale: str) -> Any:
    adapter.path, adapter.scale = path, float(scale)
    return adapter


def _sampling(sampling: Any, options: argparse.Namespace) -> None:
    for attribute, value in (
        ("temp", options.temp),
        ("top_p", options.top_p),
        ("penalty_repeat", options.repeat_penalty),
    ):
        if value is not None:
            setattr(sampling, attribute, value)


def end_when_unclaimed(claim: Path) -> None:
    """Returns never, and ends this process when nobody has touched the file for long: whoever started it was killed, and no
    other supervisor came. Told by changes, not by the time in the file: a clock that is set ends nothing."""
    touched, since = _touched(claim), time.monotonic()
    while time.monotonic() - since < UNCLAIMED_SECONDS:
        time.sleep(UNCLAIMED_SECONDS / 20)
        if (now := _touched(claim)) != touched:
            touched, since = now, time.monotonic()
    sys.stderr.write(f"nobody has looked after this engine for {UNCLAIMED_SECONDS} s: it ends\n")
    os.kill(os.getpid(), signal.SIGTERM)


def _touched(claim: Path) -> int:
    try:
        return claim.stat().st_mtime_ns
    except OSError:
        return 0


def main(argv: list[str]) -> int:
    options = parse(argv)
    key = os.environ.pop("LLAMA_API_KEY", "")
    if not key:
        sys.stderr.write("LLAMA_API_KEY is not set\n")
        return 2
    # The system's own action: the process ends at once, also while the engine's threads compute.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if claim := os.environ.get("LLM_CLAIM"):
        threading.Thread(target=end_when_unclaimed, args=(Path(claim),), daemon=True).start()
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
